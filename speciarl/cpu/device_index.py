"""Device index of the CPU, for both ways in which veRL uses ``get_device_id()``."""

from typing import Self


class DeviceIndex(str):
    """String that is ``"cpu"`` to torch and formats as ``0``.

    veRL writes ``tensor.to(get_device_id())``, where a plain 0 would mean the first accelerator, and
    ``f"{get_device_name()}:{get_device_id()}"``, which has to give ``cpu:0``.
    """

    __slots__ = ()

    def __new__(cls) -> Self:
        return super().__new__(cls, "cpu")

    def __format__(self, spec: str) -> str:
        return format("0", spec)

    def __int__(self) -> int:
        return 0

    def __index__(self) -> int:
        return 0
