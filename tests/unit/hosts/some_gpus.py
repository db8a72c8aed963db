"""GPUs for the tests of what knows of them."""

from __future__ import annotations

from nvml_standin import GIB, Gpu


def h100(number: int = 0, **more: object) -> Gpu:
    return Gpu(
        "NVIDIA H100 80GB HBM3",
        f"GPU-{number}2345678-1111-2222-3333-444444444444",
        (9, 0),
        memory=85_520_809_984,
        free=84 * 10**9,
        cores=16896,
        bus=f"00000000:0{number + 1}:00.0",
        mig_mode=0,
        **more,  # type: ignore[arg-type]
    )


def l4(number: int = 0) -> Gpu:
    """It has no MIG mode to ask for."""
    uuid, bus = f"GPU-{number}aaaaaaa-1111-2222-3333-444444444444", f"00000000:0{number + 1}:00.0"
    return Gpu("NVIDIA L4", uuid, (8, 9), 23 * GIB, cores=7424, bus=bus)


def mig_part(number: int, name: str = "NVIDIA A100-SXM4-40GB MIG 1g.5gb") -> Gpu:
    sizes = {
        "multiprocessorCount": 14,
        "gpuInstanceSliceCount": 1,
        "computeInstanceSliceCount": 1,
        "memorySizeMB": 4864,
    }
    return Gpu(
        name,
        f"MIG-{number}bbbbbbb-1111-5222-8333-444444444444",
        memory=4864 * 2**20,
        attributes=sizes,
        utilisation=None,
    )


def a100_in_parts(*parts: Gpu | None) -> Gpu:
    return Gpu(
        "NVIDIA A100-SXM4-40GB",
        "GPU-cccccccc-1111-2222-3333-444444444444",
        cores=6912,
        mig_mode=1,
        parts=list(parts),
        throttled=0x20,
    )
