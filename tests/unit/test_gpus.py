"""The catalogue: names as NVIDIA's driver gives them, of GPUs sold since Volta."""

import pytest

from farm.gpus import GPUS, find_gpu, plain_name

# As NVML's nvmlDeviceGetName and nvidia-smi write them, of drivers before and since 470 ("NVIDIA " came then).
NVML_NAMES = {
    "Tesla V100-SXM2-16GB": "v100",
    "Tesla V100-PCIE-32GB": "v100",
    "NVIDIA TITAN V": "titanv",
    "Tesla T4": "t4",
    "NVIDIA T4G": "t4g",
    "NVIDIA TITAN RTX": "titanrtx",
    "Quadro RTX 6000": "quadrortx6000",
    "Quadro RTX 8000": "quadrortx8000",
    "NVIDIA GeForce GTX 1650": "gtx1650",
    "NVIDIA GeForce GTX 1660 SUPER": "gtx1660super",
    "NVIDIA GeForce GTX 1660 Ti": "gtx1660ti",
    "NVIDIA GeForce RTX 2070 with Max-Q Design": "rtx2070",
    "NVIDIA GeForce RTX 2080 SUPER": "rtx2080super",
    "GeForce RTX 2080 Ti": "rtx2080ti",
    "A100-SXM4-40GB": "a100",
    "NVIDIA A100-SXM4-80GB": "a100",
    "NVIDIA A100-SXM-64GB": "a100",
    "NVIDIA A100-PCIE-40GB": "a100",
    "NVIDIA A100 80GB PCIe": "a100",
    "NVIDIA A100-SXM4-40GB MIG 1g.5gb": "a100",
    "NVIDIA A100-SXM4-80GB MIG 1g.10gb+me": "a100",
    "NVIDIA A100-SXM4-40GB MIG 1c.3g.20gb": "a100",
    "NVIDIA A800-SXM4-80GB": "a800",
    "NVIDIA A30": "a30",
    "NVIDIA A30 MIG 2g.12gb": "a30",
    "NVIDIA A2": "a2",
    "NVIDIA A10": "a10",
    "NVIDIA A10G": "a10g",
    "NVIDIA A16": "a16",
    "NVIDIA A40": "a40",
    "NVIDIA RTX A2000 12GB": "rtxa2000",
    "NVIDIA RTX A4000": "rtxa4000",
    "NVIDIA RTX A6000": "rtxa6000",
    "NVIDIA GeForce RTX 3050 Ti Laptop GPU": "rtx3050ti",
    "NVIDIA GeForce RTX 3060": "rtx3060",
    "NVIDIA GeForce RTX 3080 Ti": "rtx3080ti",
    "NVIDIA GeForce RTX 3090": "rtx3090",
    "Orin (nvgpu)": "orin",
    "NVIDIA L4": "l4",
    "NVIDIA L20": "l20",
    "NVIDIA L40": "l40",
    "NVIDIA L40S": "l40s",
    "NVIDIA GeForce RTX 4070 SUPER": "rtx4070super",
    "NVIDIA GeForce RTX 4070 Ti SUPER": "rtx4070tisuper",
    "NVIDIA GeForce RTX 4090": "rtx4090",
    "NVIDIA GeForce RTX 4090 D": "rtx4090d",
    "NVIDIA RTX 2000 Ada Generation": "rtx2000ada",
    "NVIDIA RTX 4000 SFF Ada Generation": "rtx4000sffada",
    "NVIDIA RTX 6000 Ada Generation": "rtx6000ada",
    "NVIDIA H100 80GB HBM3": "h100",
    "NVIDIA H100 PCIe": "h100",
    "NVIDIA H100 NVL": "h100",
    "NVIDIA H100 80GB HBM3 MIG 3g.40gb": "h100",
    "NVIDIA H200": "h200",
    "NVIDIA H200 NVL": "h200",
    "NVIDIA H20": "h20",
    "NVIDIA H800": "h800",
    "NVIDIA GH200 480GB": "gh200",
    "NVIDIA GH200 144G HBM3e": "gh200",
    "NVIDIA B200": "b200",
    "NVIDIA GB200": "gb200",
    "NVIDIA B300 SXM6 AC": "b300",
    "NVIDIA GB300": "gb300",
    "NVIDIA GB10": "gb10",
    "NVIDIA Thor": "thor",
    "NVIDIA GeForce RTX 5070 Ti": "rtx5070ti",
    "NVIDIA GeForce RTX 5090": "rtx5090",
    "NVIDIA GeForce RTX 5090 D": "rtx5090d",
    "NVIDIA RTX PRO 4000 Blackwell": "rtxpro4000",
    "NVIDIA RTX PRO 6000 Blackwell Workstation Edition": "rtxpro6000",
    "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition": "rtxpro6000",
    "NVIDIA RTX PRO 6000 Blackwell Server Edition": "rtxpro6000",
    # A slice that a hypervisor gives out is no GPU of that name, and these are no GPUs at all that farm knows.
    "GRID T4-16Q": None,
    "NVIDIA A10-24Q": None,
    "NVIDIA Graphics Device": None,
    "Tesla P100-PCIE-16GB": None,
}


@pytest.mark.parametrize(("name", "known"), NVML_NAMES.items())
def test_names_that_the_driver_gives(name: str, known: str | None) -> None:
    found = find_gpu(name)
    assert (found.name if found else None) == known


@pytest.mark.parametrize("name", sorted(GPUS))
def test_every_name_is_its_own_plain_name(name: str) -> None:
    assert plain_name(name) == name and find_gpu(f"NVIDIA {name.upper()}") == GPUS[name]


def test_a_name_that_is_not_known_is_still_one_word() -> None:
    assert plain_name("NVIDIA Rubin R100-SXM8-288GB") == "rubinr100"
