"""What transformers computes, for tests/models/test_hugging_face.py.

    python tools/decoder_reference.py stored OUTPUT
    python tools/decoder_reference.py make FOLDER
    python tools/decoder_reference.py read FOLDER

It needs PyTorch and transformers. ``stored`` writes the logits of nets whose
weights are closed formulas (`fill`), which the test has from here. ``make``
writes nets with random weights below a folder, as transformers does, and
``logits.json`` with what they give; ``read`` writes the logits of the nets that
are there already.
"""

import copy
import json
import sys
from pathlib import Path

import numpy as np

SMALL = {
  'vocab_size': 13,
  'hidden_size': 16,
  'num_hidden_layers': 2,
  'num_attention_heads': 4,
  'num_key_value_heads': 2,
  'intermediate_size': 24,
  'max_position_embeddings': 64,
}
LLAMA3 = {
  **{'rope_type': 'llama3', 'factor': 8.0, 'low_freq_factor': 1.0},
  **{'high_freq_factor': 4.0, 'original_max_position_embeddings': 16},
}
LINEAR = {'rope_type': 'linear', 'factor': 2.0}
LLAMA, QWEN2, QWEN3 = (
  {'architectures': [f'{name}ForCausalLM'], 'model_type': name.lower(), **SMALL}
  for name in ('Llama', 'Qwen2', 'Qwen3')
)
GEMMA3 = {
  **{'architectures': ['Gemma3ForCausalLM'], 'model_type': 'gemma3_text'},
  **{**SMALL, 'head_dim': 6, 'sliding_window': 5, 'query_pre_attn_scalar': 6},
  'tie_word_embeddings': True,
}
# As in config.json of published models, which is what transformers 4 writes.
CONFIGS = {
  'llama': {**LLAMA, 'rope_theta': 5e5, 'rms_norm_eps': 1e-5},
  'llama3': {
    **{**LLAMA, 'rope_scaling': LLAMA3, 'rope_theta': 100.0},
    **{'tie_word_embeddings': True, 'head_dim': 8},
  },
  'linear': {**LLAMA, 'rope_scaling': LINEAR, 'num_key_value_heads': 4},
  'smollm': {
    **{**LLAMA, 'rope_theta': 1e5, 'tie_word_embeddings': True},
    **{'hidden_size': 12, 'num_attention_heads': 3, 'num_key_value_heads': 1},
  },
  'qwen2': {**QWEN2, 'rope_theta': 1e6, 'num_key_value_heads': 1},
  'qwen2_tied': {**QWEN2, 'rope_theta': 1e3, 'tie_word_embeddings': True},
  'qwen3': {
    **{**QWEN3, 'rope_theta': 1e6, 'head_dim': 6},
    'tie_word_embeddings': True,
  },
  # Windows of 5 in rows of 24, as 1B says them and, with RoPE scaled, as 4B.
  'gemma3': {
    **{**GEMMA3, 'num_hidden_layers': 3, 'sliding_window_pattern': 3},
    **{'rope_theta': 1e6, 'rope_local_base_freq': 1e3},
  },
  'gemma3_scaled': {
    **{**GEMMA3, 'num_hidden_layers': 3, 'rope_scaling': LINEAR},
    **{'rope_theta': 1e3, 'query_pre_attn_scalar': 10},
    'layer_types': ['sliding_attention', 'full_attention', 'sliding_attention'],
    'tie_word_embeddings': False,
  },
}
TOKENS = (np.arange(24) ** 2 % 13)[None]


def wave(shape, phase):
  """Numbers in [-1, 1] of no visible order: sin(n² / 10 + phase)."""
  n = np.arange(np.prod(shape), dtype=np.float64)
  return np.sin(n * n / 10 + phase).reshape(shape)


def fill(shapes):
  """Tensors in float32, by name, of these shapes."""
  found = {}
  for phase, (name, shape) in enumerate(sorted(shapes.items())):
    scale = 0.3 if len(shape) == 1 else (6 / shape[-1]) ** 0.5
    scales = len(shape) == 1 and name.endswith('weight')
    found[name] = (scales + scale * wave(shape, phase)).astype(np.float32)
  return found


def main(mode, path):
  """Writes what the mode is about; see above."""
  import torch
  import transformers

  def logits(model):
    with torch.no_grad():
      found = model.eval()(input_ids=torch.tensor(TOKENS)).logits[0]
    return found.double().numpy()

  def built(config):
    # A copy, as transformers writes into the dicts that it is given.
    kind = transformers.AutoConfig.for_model(**copy.deepcopy(config))
    return transformers.AutoModelForCausalLM.from_config(
      kind, attn_implementation='eager'
    )

  path = Path(path)
  if mode == 'stored':
    with path.open('w') as file:
      for name, config in CONFIGS.items():
        model = built(config)
        shapes = {n: tuple(x.shape) for n, x in model.named_parameters()}
        state = {n: torch.tensor(x) for n, x in fill(shapes).items()}
        model.load_state_dict(state, strict=False)
        model.tie_weights()
        line = {'name': name, 'logits': logits(model).round(6).tolist()}
        file.write(json.dumps(line) + '\n')
    return
  if mode == 'make':
    torch.manual_seed(0)
    for name, config in CONFIGS.items():
      model = built(config)
      for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
      # Some in shards of bfloat16, as large models come.
      if name.startswith('qwen2'):
        model = model.to(torch.bfloat16)
      model.save_pretrained(path / name, max_shard_size='4KB')
  found = {}
  for name in CONFIGS:
    if (path / name).is_dir():
      model = transformers.AutoModelForCausalLM.from_pretrained(
        path / name, dtype=torch.float32, attn_implementation='eager'
      )
      found[name] = logits(model).tolist()
  (path / 'logits.json').write_text(json.dumps(found))


if __name__ == '__main__':
  main(*sys.argv[1:])
