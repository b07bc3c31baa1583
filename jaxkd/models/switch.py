"""How a module is told whether it trains: an argument by one of these names."""

ON = ('train', 'training', 'is_training', 'is_train', 'enable_dropout')
OFF = (
  'deterministic', 'use_running_average', 'inference', 'eval', 'eval_mode',
  'is_eval',
)  # fmt: skip


def flags(train: bool) -> dict[str, bool]:
  """What every name of a switch is set to."""
  return dict.fromkeys(ON, train) | dict.fromkeys(OFF, not train)
