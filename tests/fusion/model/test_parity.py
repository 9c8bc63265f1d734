"""Every connector against the authors' code.

RECORDED of tests/fakes/fusion_parity.py holds what these gave for its seeded weights and pictures, in float32 on a CPU:

- mlp, s2: CLIPVisionTower, CLIPVisionTowerS2 and build_vision_projector of github.com/haotian-liu/LLaVA@c121f043 with
  forward of github.com/bfshi/scaling_on_scales@9c008a37;
- sti, sci, dci: LlavaMetaForCausalLM.encode_images of github.com/HJYao00/DenseConnector@0f8936c4 with its towers, the
  SigLIP of 27 layers being its own;
- conv_gate: MultiFuseObjectLLaVAModel._prepare_data_for_llm of github.com/PhoenixZ810/MG-LLaVA@3237152d with its
  OpenCLIPVisionTower, DualPathFuseModule, align_box and ProjectorModel, around a ConvNeXt of timm; roi_align was the
  kernel for CPUs of github.com/pytorch/vision, compiled alone;
- dbfusion: the projector of github.com/JiuhaiChen/Florence-VL@c1d4abd2 on what transformers' Florence2 gives: the
  authors' own Florence-2 is not published as code, so that only what follows it is compared.

Shims: mmengine, fairscale, deepspeed and most of xtuner, of which nothing is computed. The largest difference of any
value was 2.4e-6 (SigLIP), 6e-8 of conv_gate and 0 of the others.
"""

import pytest
import torch

from tests.fakes.fusion_parity import CASES, RECORDED, digest, ours

CLOSE = 1e-5


@pytest.mark.parametrize("name", CASES)
def test_tokens_are_the_authors(name):
    far = (torch.tensor(digest(ours(CASES[name]))) - torch.tensor(RECORDED[name])).abs().max()
    assert far < CLOSE
