"""Writes the small programs that the front-door tests ask for. Run as a script of its own: it imports torch."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn


class Gemm(nn.Module):
    """An fp32 matrix product: TensorRT-RTX builds it for sm_80 and newer, never for sm_75."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(16, 32)
        self.second = nn.Linear(32, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x)))


class GemmRenamed(nn.Module):
    """The same program under other names."""

    def __init__(self) -> None:
        super().__init__()
        self.alpha = nn.Linear(16, 32)
        self.omega = nn.Linear(32, 8)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        hidden = self.alpha(tokens)
        return self.omega(hidden.relu())


class Conv(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.conv(image)).mean((2, 3))


class Deep(nn.Module):
    """Big enough that its build takes a second or more."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(256, 4, 1024, batch_first=True, dropout=0.0)
        self.body = nn.TransformerEncoder(layer, 6, enable_nested_tensor=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


class Fft(nn.Module):
    """Cannot be converted: TensorRT has no Fourier transform."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.fft.rfft(x).abs()


def export(module: nn.Module, example: torch.Tensor, path: Path, **kwargs: object) -> None:
    torch.export.save(torch.export.export(module.eval(), (example,), **kwargs), path)  # type: ignore[arg-type]


def main(folder: Path) -> None:
    torch.manual_seed(0)
    gemm, renamed = Gemm(), GemmRenamed()
    renamed.alpha.load_state_dict(gemm.first.state_dict())
    renamed.omega.load_state_dict(gemm.second.state_dict())
    batch = {0: torch.export.Dim("batch", min=1, max=32)}
    export(gemm, torch.randn(4, 16), folder / "gemm.pt2", dynamic_shapes=(batch,))
    export(renamed, torch.randn(7, 16), folder / "renamed.pt2", dynamic_shapes=(batch,))
    tuned = Gemm()
    export(tuned, torch.randn(4, 16), folder / "tuned.pt2", dynamic_shapes=(batch,))
    export(Conv(), torch.randn(1, 3, 32, 32), folder / "conv.pt2")
    export(Deep(), torch.randn(1, 64, 256), folder / "deep.pt2")
    export(Fft(), torch.randn(4, 16), folder / "fft.pt2")
    whole = (folder / "gemm.pt2").read_bytes()
    (folder / "truncated.pt2").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.pt2").write_bytes(b"")
    (folder / "text.onnx").write_text("this is no model\n")
    torch.save(gemm.state_dict(), folder / "checkpoint.pt2")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
