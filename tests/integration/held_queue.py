"""veRL's queue of trajectories in this process's memory: TransferQueue's key-value functions without its servers."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import pytest
import transfer_queue
from tensordict import TensorDict
from transfer_queue.storage.managers.simple_storage_manager import AsyncSimpleStorageManager


class HeldQueue:
    """Tags and fields of every key, by partition."""

    def __init__(self) -> None:
        self._tags: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
        self._fields: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Stand in for the functions that veRL and we call as `tq.NAME`."""
        for function in (self.kv_list, self.kv_batch_put, self.kv_batch_get, self.kv_clear):
            patch.setattr(transfer_queue, function.__name__, function)
        for name in ("async_kv_put", "async_kv_batch_put"):
            patch.setattr(transfer_queue, name, getattr(self, name))
        patch.setattr(transfer_queue, "init", lambda *_: None)

    def kv_list(self, partition_id: str | None = None) -> dict[str, dict[str, Any]]:
        """Tags by key, by partition."""
        chosen = self._tags if partition_id is None else {partition_id: self._tags[partition_id]}
        return {name: {key: dict(tag) for key, tag in tags.items()} for name, tags in chosen.items()}

    def kv_batch_put(
        self, keys: Sequence[str], partition_id: str, fields: Any = None, tags: Sequence[dict[str, Any]] | None = None
    ) -> Any:
        """Add or replace tags, fields or both of some keys; veRL asks for the batch back."""
        for place, key in enumerate(keys):
            if tags is not None:
                self._tags[partition_id].setdefault(key, {}).update(tags[place])
        if fields is not None:
            columns = {name: _rows(fields.get(name)) for name in fields.keys()}  # noqa: SIM118 - a TensorDict
            for place, key in enumerate(keys):
                held = self._fields[partition_id].setdefault(key, {})
                held.update({name: column[place] for name, column in columns.items()})
        return transfer_queue.KVBatchMeta(
            keys=list(keys), tags=[self._tags[partition_id].get(key, {}) for key in keys], partition_id=partition_id
        )

    def kv_batch_get(self, keys: Sequence[str], partition_id: str, select_fields: Sequence[str] | None = None) -> Any:
        """The fields of some keys: those that are asked for and there, or all."""
        held = [self._fields[partition_id][key] for key in keys]
        names = [name for name in held[0] if select_fields is None or name in select_fields]
        pack = AsyncSimpleStorageManager._pack_field_values  # what is jagged, and how, is for TransferQueue to say
        return TensorDict({name: pack([row[name] for row in held]) for name in names}, batch_size=len(keys))

    def kv_clear(self, keys: Sequence[str], partition_id: str) -> None:
        """Forget some keys."""
        for key in keys:
            self._tags[partition_id].pop(key, None)
            self._fields[partition_id].pop(key, None)

    async def async_kv_put(self, key: str, partition_id: str, tag: dict[str, Any]) -> None:
        """Set the tag of one key."""
        self.kv_batch_put([key], partition_id, tags=[tag])

    async def async_kv_batch_put(self, keys: Sequence[str], partition_id: str, fields: Any, tags: Any) -> None:
        """See `kv_batch_put`."""
        self.kv_batch_put(keys, partition_id, fields, tags)


def _rows(column: Any) -> list[Any]:
    # A jagged column can only be taken apart whole.
    return column.unbind() if hasattr(column, "offsets") else list(column)
