"""Verdict store: keeps verdicts beyond the process, content-addressed, first writer wins, in a file or in Redis."""

from speciarl.verifier_server.store.factory import build_store, close_store, open_store
from speciarl.verifier_server.store.interface import StoreError, VerdictStore
from speciarl.verifier_server.store.key import JudgeIdentity, identity_of, model_revision
from speciarl.verifier_server.store.read_through import ReadThroughStore
from speciarl.verifier_server.store.record import Record
from speciarl.verifier_server.store.resilient import ResilientStore

__all__ = [
    "JudgeIdentity",
    "ReadThroughStore",
    "Record",
    "ResilientStore",
    "StoreError",
    "VerdictStore",
    "build_store",
    "close_store",
    "identity_of",
    "model_revision",
    "open_store",
]
