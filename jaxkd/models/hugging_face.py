"""Folders of Hugging Face, as decoders of ours, and the way back.

A folder has ``config.json``, which says what is computed, and weights in
``model.safetensors``, or in several files, shards, that
``model.safetensors.index.json`` lists. The architectures are those that
`jaxkd.models.decoder` computes: Llama, which SmolLM is too, Qwen2, Qwen3 and
Gemma 3. Of a Gemma 3 that sees images the language model alone is read. What
would be computed in another way than here is refused. Nets for images are told
of in `jaxkd.models.hugging_face_vision`.

``hf:FOLDER`` is the name of a model with the options of that folder, and of
where nets are restored from.
"""

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
from safetensors.numpy import save_file

from jaxkd import files
from jaxkd.data.text.tokens import BOS, EOS, PAD
from jaxkd.errors import UserError, unknown
from jaxkd.paths import by_path

PREFIX = 'hf:'  # of such a folder, in a config
DTYPES = ('float32', 'bfloat16')  # that weights are written in

CONFIG = 'config.json'
ADAPTER = 'adapter_config.json'  # of peft
WEIGHTS = 'model.safetensors'
INDEX = f'{WEIGHTS}.index.json'
SHARD = 5 * 10**9  # bytes, the most in a file

# What an architecture fixes, as options of a decoder.
_LLAMA = {
  **{'qkv_bias': False, 'qk_norm': False, 'activation': 'silu', 'window': 0},
  **{'post_norm': False, 'zero_centered': False, 'scaled_embedding': False},
  'query_scalar': 0,
}
_GEMMA3 = {
  **{'qkv_bias': False, 'qk_norm': True, 'activation': 'gelu'},
  **{'post_norm': True, 'zero_centered': True, 'scaled_embedding': True},
}
GEMMA3 = 'Gemma3ForCausalLM'
ARCHITECTURES = {
  'LlamaForCausalLM': _LLAMA,
  'Qwen2ForCausalLM': {**_LLAMA, 'qkv_bias': True},
  'Qwen3ForCausalLM': {**_LLAMA, 'qk_norm': True},
  GEMMA3: _GEMMA3,
}
GEMMA3_IMAGES = 'Gemma3ForConditionalGeneration'
# Of nets for images; see `jaxkd.models.hugging_face_vision`.
VISION = ('ViTForImageClassification', 'ResNetForImageClassification')
_TYPES = {'llama': 'LlamaForCausalLM', 'qwen2': 'Qwen2ForCausalLM'}
_TYPES |= {'qwen3': 'Qwen3ForCausalLM', 'gemma3_text': GEMMA3}
_SPECIAL = {
  'pad_token_id': ('pad', PAD),
  'bos_token_id': ('bos', BOS),
  'eos_token_id': ('eos', EOS),
}
_NEEDED = {
  'vocab_size': 'vocabulary',
  'hidden_size': 'width',
  'num_hidden_layers': 'depth',
  'num_attention_heads': 'heads',
  'intermediate_size': 'mlp_width',
}
# What Gemma 3 takes where config.json leaves it out, as published ones do.
_GEMMA3_DEFAULTS = {
  **{'num_attention_heads': 8, 'num_key_value_heads': 4, 'head_dim': 256},
  **{'vocab_size': 262_208, 'query_pre_attn_scalar': 256},
  **{'sliding_window': 4096, 'sliding_window_pattern': 6},
  **{'rope_theta': 1e6, 'rope_local_base_freq': 1e4},
  **{'max_position_embeddings': 131_072, 'tie_word_embeddings': True},
}
# Entries by their kind; those that are not needed may be left out.
_WHOLE = (
  *_NEEDED,
  *('num_key_value_heads', 'head_dim', 'max_position_embeddings'),
)
_NUMBERS = ('rms_norm_eps', 'rope_theta', 'rope_local_base_freq')
_OBJECTS = ('rope_parameters', 'rope_scaling')
_FLOATS = ('F16', 'BF16', 'F32', 'F64')  # as safetensors calls types
# Entries that change what is computed -> the values with which they do not.
_NEUTRAL = {
  'hidden_act': ('silu',),
  'attention_bias': (None, False),
  'mlp_bias': (None, False),
  'use_sliding_window': (None, False),
  'quantization_config': (None,),
  'pretraining_tp': (None, 1),
  'partial_rotary_factor': (None, 1),
}
_NEUTRAL_GEMMA3 = {
  'hidden_activation': ('gelu_pytorch_tanh',),
  'attention_bias': (None, False),
  'attn_logit_softcapping': (None,),
  'final_logit_softcapping': (None,),
  'use_bidirectional_attention': (None, False),
  'quantization_config': (None,),
}
_FULL, _SLIDING = 'full_attention', 'sliding_attention'  # of layer_types

# Our layers -> theirs.
_OUTSIDE = {
  'embed': 'model.embed_tokens',
  'norm': 'model.norm',
  'head': 'lm_head',
}
_IN_BLOCK = {
  'norm1': 'input_layernorm',
  'attention/query': 'self_attn.q_proj',
  'attention/key': 'self_attn.k_proj',
  'attention/value': 'self_attn.v_proj',
  'attention/output': 'self_attn.o_proj',
  'attention/query_norm': 'self_attn.q_norm',
  'attention/key_norm': 'self_attn.k_norm',
  'norm2': 'post_attention_layernorm',
  'mlp/gate': 'mlp.gate_proj',
  'mlp/up': 'mlp.up_proj',
  'mlp/down': 'mlp.down_proj',
}
_IN_BLOCK_OF_GEMMA3 = {  # where theirs differ from the above
  'post_norm1': 'post_attention_layernorm',
  'norm2': 'pre_feedforward_layernorm',
  'post_norm2': 'post_feedforward_layernorm',
}
_HEAD, _EMBEDDING = 'lm_head.weight', 'model.embed_tokens.weight'
_COUNT = 'num_batches_tracked'  # of BatchNorm, which has no part in a net
_IMAGES = ('vision_tower', 'multi_modal_projector')  # parts of Gemma 3
_UNUSED = '.rotary_emb.inv_freq'  # which older files keep, and config.json says


def is_folder(name: str) -> bool:
  """Whether a name of a model or of what to restore is of such a folder."""
  return name.startswith(PREFIX)


def folder(name: str, *, at: str) -> Path:
  """The folder that ``hf:FOLDER`` names."""
  return files.path(name.removeprefix(PREFIX), at=at)


def options(path: Path) -> dict[str, Any]:
  """The options of a `jaxkd.models.decoder.Model` that a folder fixes.

  Its special tokens are not among them: they are the data's tokenizer's.

  Args:
    path: the folder.

  Raises:
    UserError: there is no config.json, or what it says is not computed here.
  """
  config, file = _config(path), path / CONFIG
  given = config.get('architectures') or [_TYPES.get(config.get('model_type'))]
  if not isinstance(given, list) or given[0] not in [*ARCHITECTURES]:
    first = given[0] if isinstance(given, list) else given
    name = first or config.get('model_type', '')
    known = (*ARCHITECTURES, *VISION)
    raise unknown('architecture', str(name), known, str(file))
  is_gemma = given[0] == GEMMA3
  if is_gemma:
    config = {**_GEMMA3_DEFAULTS, **config}
  for entry, neutral in (_NEUTRAL_GEMMA3 if is_gemma else _NEUTRAL).items():
    if config.get(entry, neutral[0]) not in neutral:
      raise UserError(
        f'{file}: {entry} is {config[entry]!r}, which is not computed here; '
        f'take a model in which it is {neutral[-1]!r}'
      )
  _check_kinds(config, file)
  heads = config['num_attention_heads']
  width = (
    128 if given[0].startswith('Qwen3') else config['hidden_size'] // heads
  )
  ropes = config.get('rope_parameters') or {}
  if is_gemma:
    if set(ropes) - {_FULL, _SLIDING} or not all(
      isinstance(rope, Mapping) for rope in ropes.values()
    ):
      raise UserError(
        f'{file}: rope_parameters should have an object for {_FULL} and one '
        f'for {_SLIDING}; copy the file again from where the model comes from'
      )
    rope = ropes.get(_FULL)
    own = _windows(config, ropes.get(_SLIDING), file)
  else:
    rope, own = ropes, {}
    kinds = set(config.get('layer_types') or ()) - {_FULL}
    if kinds:
      raise UserError(
        f'{file}: layer_types has {min(kinds)}, which is not computed here; '
        f'take a model of {_FULL} alone'
      )
  theta, scaling = _rope(config, rope, file)
  return {
    **{ours: config[theirs] for theirs, ours in _NEEDED.items()},
    **ARCHITECTURES[given[0]],
    **own,
    'kv_heads': config.get('num_key_value_heads') or heads,
    'head_width': config.get('head_dim') or width,
    'rope_theta': theta,
    'rope_scaling': scaling,
    'norm_eps': config.get('rms_norm_eps') or 1e-6,
    'tied': bool(config.get('tie_word_embeddings', False)),
    'context': config.get('max_position_embeddings') or 0,
  }


def load(path: Path, like: Any, *, dtype: str = 'float32') -> dict:
  """The variables of a decoder, from the weights in a folder.

  Args:
    path: the folder.
    like: its variables or their shapes, as ``Net.init`` makes them.
    dtype: of the arrays.

  Returns:
    A tree like this one, of NumPy: nothing is put on a device.

  Raises:
    UserError: files are missing or cut short, a tensor has no place there, or
      a variable no tensor.
  """
  from jaxkd.models import decoder  # which few runs need

  wanted = by_path(like['params'])
  if any(f'/{decoder.ADAPTER}/' in name for name in wanted):
    raise UserError(
      f'{path}: its weights have no adapters; remove kw.lora here, and give it '
      'to a student that starts from this net'
    )
  of = {name: path for path, name in tensor_names(wanted).items()}
  found, head, tied = {}, None, _HEAD not in of
  for name, tensor in tensors(path):
    name = _of_text(name)
    if not name or name.endswith(_UNUSED):
      continue
    if tied and name == _HEAD:
      head = tensor.astype(jnp.dtype(dtype))
      continue
    if name not in of:
      raise UserError(
        f'{path}: the model has no place for the tensor {name} '
        f'{list(tensor.shape)}; its {CONFIG} is of another model'
      )
    target = of[name]
    value = tensor.T if target.endswith('kernel') else tensor
    if value.shape != wanted[target].shape:
      raise UserError(
        f'{path}: the tensor {name} {list(tensor.shape)} would be {target}, '
        f'which is {list(wanted[target].shape)} here; its {CONFIG} is of '
        'another model, or options contradict it'
      )
    found[target] = np.ascontiguousarray(value, jnp.dtype(dtype))
  for name, target in of.items():
    if target not in found:
      raise UserError(
        f'{path}: no tensor {name} is there for {target}; its {CONFIG} is of '
        'another model, or files are missing'
      )
  if head is not None and (head != found[of[_EMBEDDING]]).any():
    raise UserError(
      f'{path}: {_HEAD} differs from {_EMBEDDING}, and {CONFIG} says that they '
      'are tied; set tie_word_embeddings there to what the model is'
    )
  params = jax.tree.unflatten(
    jax.tree.structure(like['params']), map(found.get, wanted)
  )
  return {**like, 'params': params}


def write(
  path: Path,
  kw: Mapping[str, Any],
  params: Any,
  *,
  length: int,
  dtype: str = 'float32',
  shard: int = SHARD,
) -> None:
  """Writes a decoder as a folder that other tools load.

  Args:
    path: the folder, which must not be there yet or be empty.
    kw: all options of the decoder.
    params: its parameters.
    length: of the rows that it was trained on, where ``kw`` has no context.
    dtype: of the weights, one of `DTYPES`.
    shard: the most bytes in a file of weights.

  Raises:
    UserError: the folder holds something, a type that is not known, or options
      that no architecture has.
  """
  if dtype not in DTYPES:
    raise unknown('type of weights', dtype, DTYPES, 'dtype')
  config = config_of(kw, params, length=length, dtype=dtype)
  if path.exists() and (not path.is_dir() or any(path.iterdir())):
    raise UserError(f'{path} exists already; choose a new folder')
  tensors, values = {}, by_path(params)
  names = tensor_names(values)
  for name, value in values.items():
    own = np.asarray(value).T if name.endswith('kernel') else np.asarray(value)
    tensors[names[name]] = np.ascontiguousarray(own, jnp.dtype(dtype))
  draft = path.with_name(f'.{path.name}.draft')  # whole, or not at all
  shutil.rmtree(draft, ignore_errors=True)
  draft.mkdir(parents=True)
  (draft / CONFIG).write_text(_json(config))
  shards = _shards(tensors, shard)
  places = {}
  for i, names in enumerate(shards, 1):
    file = WEIGHTS
    if len(shards) > 1:
      file = f'model-{i:05}-of-{len(shards):05}.safetensors'
    places |= dict.fromkeys(names, file)
    own = {name: tensors[name] for name in names}
    save_file(own, draft / file, metadata={'format': 'pt'})
    files.share(draft / file)
  if len(shards) > 1:
    size = sum(x.nbytes for x in tensors.values())
    index = {'metadata': {'total_size': size}, 'weight_map': places}
    (draft / INDEX).write_text(_json(index))
  if path.exists():
    path.rmdir()
  draft.rename(path)


def config_of(
  kw: Mapping[str, Any], params: Any, *, length: int, dtype: str
) -> dict[str, Any]:
  """What ``config.json`` says of a decoder; see `write`.

  RoPE is said as transformers 4 has it, which later versions and other tools
  read too.
  """
  found = [
    name
    for name, own in ARCHITECTURES.items()
    if all(kw[option] == value for option, value in own.items())
  ]
  if not found:
    raise UserError(
      'no architecture of Hugging Face has these options together: '
      + ', '.join(f'{name}={kw[name]!r}' for name in _LLAMA)
      + '; take those of one that hf:FOLDER reads'
    )
  kind = {name: kind for kind, name in _TYPES.items()}[found[0]]
  heads = kw['heads']
  return {
    'architectures': found,
    'model_type': kind,
    'vocab_size': len(params['embed']['embedding']),
    'hidden_size': kw['width'],
    'num_hidden_layers': kw['depth'],
    'num_attention_heads': heads,
    'num_key_value_heads': kw['kv_heads'] or heads,
    'head_dim': kw['head_width'] or kw['width'] // heads,
    'intermediate_size': kw['mlp_width'] or 4 * kw['width'],
    **(_gemma3_of(kw) if found[0] == GEMMA3 else {'hidden_act': 'silu'}),
    'rms_norm_eps': kw['norm_eps'],
    'rope_theta': kw['rope_theta'],
    'rope_scaling': kw['rope_scaling'],
    'max_position_embeddings': kw['context'] or length,
    'tie_word_embeddings': kw['tied'],
    'attention_bias': False,
    'mlp_bias': False,
    **{
      name: ours if kw[option] is None else kw[option]
      for name, (option, ours) in _SPECIAL.items()
    },
    'torch_dtype': dtype,
  }


def tensor_names(paths: Iterable[str]) -> dict[str, str]:
  """The names there of all our parameters, such as ``blocks/0/mlp/up/kernel``.

  Args:
    paths: of all of them, as the architecture shows in which there are.
  """
  paths, inside = list(paths), _IN_BLOCK
  if any('/post_norm1/' in path for path in paths):
    inside = {**_IN_BLOCK, **_IN_BLOCK_OF_GEMMA3}
  found = {}
  for path in paths:
    layer, _, last = path.rpartition('/')
    if layer.startswith('blocks/'):
      _, number, inner = layer.split('/', 2)
      layer = f'model.layers.{number}.{inside[inner]}'
    else:
      layer = _OUTSIDE[layer]
    found[path] = f'{layer}.{"bias" if last == "bias" else "weight"}'
  return found


def weight_files(path: Path) -> list[Path]:
  """The files of a folder's weights.

  Raises:
    UserError: there are none, not all that the index lists, or others too.
  """
  if not (path / INDEX).is_file():
    if (path / WEIGHTS).is_file():
      return [path / WEIGHTS]
    others = sorted(file.name for file in path.glob('*.bin'))
    has = ''
    if others:
      has = f', and {others[0]} is a pickle, which can run any code'
    raise UserError(
      f'{path}: there are no weights in {WEIGHTS} or {INDEX}{has}; download '
      'the safetensors files of that model too'
    )
  places = read_json(path / INDEX).get('weight_map')
  if (
    not isinstance(places, Mapping)
    or not places
    or not all(isinstance(name, str) for name in places.values())
  ):
    raise UserError(
      f'{path / INDEX} has no weight_map of names of files; copy the file '
      'again from where the model comes from'
    )
  if WEIGHTS not in places.values() and (path / WEIGHTS).is_file():
    raise UserError(
      f'{path} has both {WEIGHTS} and {INDEX}, which lists other files, so it '
      'is not known which weights are meant; remove one of them'
    )
  found = [path / name for name in sorted(set(places.values()))]
  missing = [file.name for file in found if not file.is_file()]
  if missing:
    raise UserError(
      f'{path}: {", ".join(missing)} of the {len(found)} files that {INDEX} '
      'lists are missing; copy them there too'
    )
  return found


def _check_kinds(config: Mapping[str, Any], file: Path) -> None:
  """Refuses entries that are missing, or of another kind than they should be.

  Raises:
    UserError: naming the entry.
  """

  def is_positive(x, kind):
    return isinstance(x, kind) and not isinstance(x, bool) and x > 0

  for kind, fits, entries in (
    ('whole number above 0', lambda x: is_positive(x, int), _WHOLE),
    ('number above 0', lambda x: is_positive(x, int | float), _NUMBERS),
    ('object', lambda x: isinstance(x, Mapping), _OBJECTS),
    ('list', lambda x: isinstance(x, list), ('layer_types',)),
    ('boolean', lambda x: isinstance(x, bool), ('tie_word_embeddings',)),
  ):
    for entry in entries:
      given = config.get(entry)
      if not fits(given) and (given is not None or entry in _NEEDED):
        raise UserError(
          f'{file}: {entry} is missing or no {kind}; copy the file again from '
          'where the model comes from'
        )


def _rope(
  config: Mapping[str, Any], given: Mapping[str, Any] | None, file: Path
) -> tuple[float, dict[str, Any] | None]:
  """The base of RoPE and how it is scaled, as options of a decoder.

  Args:
    config: the file's.
    given: what later versions of transformers say in one entry, if they did.
    file: for error messages.
  """
  theta, earlier = config.get('rope_theta') or 1e4, config.get('rope_scaling')
  rope = given or {**(earlier or {}), 'rope_theta': theta}
  kind = rope.get('rope_type', rope.get('type'))
  rope = {k: x for k, x in rope.items() if k not in ('rope_type', 'type')}
  if rope.pop('partial_rotary_factor', 1) != 1:
    raise UserError(
      f'{file}: partial_rotary_factor is not 1, which is not computed here; '
      'take a model that turns all features of a head'
    )
  theta = rope.pop('rope_theta', theta)
  if not isinstance(theta, int | float):
    raise UserError(
      f'{file}: rope_theta is {theta!r}, no number; copy the file again from '
      'where the model comes from'
    )
  if kind is None and rope:
    raise UserError(
      f'{file}: the scaling of RoPE has {", ".join(rope)} and no rope_type; '
      'copy the file again from where the model comes from'
    )
  scaled = kind not in (None, 'default')
  scaling = {**rope, 'rope_type': kind} if scaled else None
  alone = {'rope_scaling': earlier}
  if given and earlier and _rope(alone, None, file)[1] != scaling:
    raise UserError(
      f'{file}: rope_parameters and rope_scaling differ, of which versions of '
      'transformers take one or the other; remove the one that is wrong'
    )
  return float(theta), scaling


def _windows(
  config: Mapping[str, Any], rope: Mapping[str, Any] | None, file: Path
) -> dict[str, Any]:
  """The options of a decoder about blocks with a window, of Gemma 3.

  Args:
    config: complete.
    rope: of these blocks, as later versions of transformers say it, or None.
    file: for error messages.
  """
  plain = {'rope_theta': config['rope_local_base_freq']}
  theta, scaling = _rope(plain, rope, file)
  if scaling:
    raise UserError(
      f'{file}: rope_parameters scale {_SLIDING}, which is not computed here; '
      f'take a model in which {_FULL} alone is scaled'
    )
  depth, kinds = config['num_hidden_layers'], config.get('layer_types')
  period = config['sliding_window_pattern']
  if kinds:
    period = kinds.index(_FULL) + 1 if _FULL in kinds else len(kinds) + 1
    if list(kinds) != _layer_types(depth, period):
      raise UserError(
        f'{file}: layer_types should be {_SLIDING} for all {depth} layers but '
        f'each n-th, which is {_FULL}; others are not computed here'
      )
  sizes = {
    'sliding_window_pattern': period,
    'sliding_window': config['sliding_window'],
    'query_pre_attn_scalar': config['query_pre_attn_scalar'],
  }
  if period == 1:
    del sizes['sliding_window']
  for entry, size in sizes.items():
    if not isinstance(size, int) or size < 1:
      raise UserError(f'{file}: {entry} is {size!r}, not a number from 1 on')
  return {
    'window': sizes.get('sliding_window', 0),
    'window_period': period,
    'window_theta': theta,
    'query_scalar': config['query_pre_attn_scalar'],
  }


def _layer_types(depth: int, period: int) -> list[str]:
  """What each layer sees, where each `period`-th sees all tokens."""
  return [_SLIDING if (i + 1) % period else _FULL for i in range(depth)]


def _gemma3_of(kw: Mapping[str, Any]) -> dict[str, Any]:
  """What ``config.json`` says of Gemma 3 beside what it says of others."""
  head_width = kw['head_width'] or kw['width'] // kw['heads']
  period = kw['window_period'] if kw['window'] else 1
  return {
    'hidden_activation': 'gelu_pytorch_tanh',
    'query_pre_attn_scalar': kw['query_scalar'] or head_width,
    'sliding_window': kw['window'] or None,
    'sliding_window_pattern': period,
    'layer_types': _layer_types(kw['depth'], period),
    'rope_local_base_freq': kw['window_theta'],
    'attn_logit_softcapping': None,
    'final_logit_softcapping': None,
  }


def tensors(path: Path) -> Iterator[tuple[str, np.ndarray]]:
  """The tensors of a folder by name, one in memory at a time.

  Raises:
    UserError: a file cannot be read, a name is there twice, or what is tied
      differs.
  """
  seen = set()
  for file in weight_files(path):
    try:
      reader = safetensors.safe_open(file, framework='numpy')
    except Exception as error:  # of many kinds
      files.refuse_pointer(file)
      raise UserError(
        f'{file} is damaged or cut short ({error}); copy it again'
      ) from error
    with reader:
      for name in reader.keys():  # noqa: SIM118
        if name in seen:
          raise UserError(
            f'{path}: the tensor {name} is in several files; keep the files of '
            'one model there'
          )
        seen.add(name)
        if name.endswith(_COUNT):
          continue
        kind = reader.get_slice(name).get_dtype()
        if kind not in _FLOATS:
          raise UserError(
            f'{file} holds {kind} in {name}, and quantised weights are not '
            'read; take the model in bfloat16 or float32'
          )
        yield name, reader.get_tensor(name)


def _shards(tensors: Mapping[str, np.ndarray], size: int) -> list[list[str]]:
  """The names of tensors in lists of at most so many bytes, or of one."""
  found, held = [[]], 0
  for name, tensor in tensors.items():
    if found[-1] and held + tensor.nbytes > size:
      found.append([])
      held = 0
    found[-1].append(name)
    held += tensor.nbytes
  return found


def read_config(path: Path) -> dict[str, Any]:
  """What a folder's ``config.json`` says.

  Raises:
    UserError: there is none, it is no JSON, or an adapter is beside it.
  """
  if (path / ADAPTER).is_file():
    raise UserError(
      f'{path}: {ADAPTER} says that an adapter belongs to the weights, which '
      'is not added here; save what merge_and_unload() of peft gives'
    )
  if not (path / CONFIG).is_file():
    raise UserError(
      f'{path}: there is no {CONFIG}; name a folder of Hugging Face, as '
      '`hf download NAME --local-dir FOLDER` makes it'
    )
  return read_json(path / CONFIG)


def _config(path: Path) -> dict[str, Any]:
  """The same of a language model, alone where it sees images too."""
  found = read_config(path)
  if found.get('architectures') != [GEMMA3_IMAGES]:
    return found
  text = found.get('text_config') or {}
  if not isinstance(text, Mapping):
    raise UserError(f'{path / CONFIG}: text_config is no object; copy it again')
  return {**text, 'architectures': [GEMMA3]}


def _of_text(name: str) -> str:
  """A tensor's name in the language model alone; empty if it is not in it.

  Versions of transformers put the parts of a model that sees images in another
  order: ``language_model.model`` and ``model.language_model``.
  """
  first, *rest = name.split('.')
  if first == 'language_model':
    return '.'.join(rest)
  parts = rest if first == 'model' else [first]
  if parts[0] in _IMAGES:
    return ''
  if parts[0] == 'language_model':
    return '.'.join([first, *parts[1:]])
  return name


def read_json(file: Path) -> dict[str, Any]:
  """The object in a file.

  Raises:
    UserError: it is no JSON, or no object.
  """
  try:
    found = json.loads(file.read_text())
  except ValueError as error:
    files.refuse_pointer(file)
    raise UserError(
      f'{file} is not JSON ({error}); copy it again from where the model comes '
      'from'
    ) from error
  if not isinstance(found, dict):
    raise UserError(f'{file} is no JSON object; copy it again')
  return found


def _json(value: Any) -> str:
  return json.dumps(value, indent=2, default=dict) + '\n'
