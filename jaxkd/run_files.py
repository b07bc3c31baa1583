"""What a run leaves in its workdir, by name; docs/config.md says what it is."""

CONFIG, PROVENANCE, ROW = 'config.json', 'provenance.json', 'row.json'
TUNING = 'tuning.json'
REPORT = 'report.html'
CURVES, COSTS, SERIES = 'curves.png', 'costs.png', 'series.png'
# Folders: of pictures of examples, of the state of training, of exported nets,
# of cached outputs, of generated examples, and of what TensorBoard shows.
EXAMPLES, CHECKPOINTS, NETS = 'shown', 'checkpoints', 'nets'
OUTPUTS, GENERATED, EVENTS = 'outputs', 'generated', 'events'

# What is trained or computed, and must not be gone on with by another run.
COMPUTED = (TUNING, CHECKPOINTS, NETS, OUTPUTS, GENERATED)
# All of it; what --overwrite removes, and nothing else.
MADE = (
  ROW,
  *COMPUTED,
  *(REPORT, CURVES, COSTS, SERIES, EXAMPLES, EVENTS),
  PROVENANCE,
  CONFIG,  # last: what is left by a removal cut short is still known as ours
)
