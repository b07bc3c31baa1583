"""What a run found as one page of HTML that needs no other file."""

import base64
import html
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt

from jaxkd import files, run_files
from jaxkd.report import intervals, system, terminal, wording

_HERE = '@@arms@@'  # where the picture of the arms goes
# Colours that the page's style has, so that it is light or dark as a whole.
_COLOURS = intervals.Palette(
  *(f'var(--{name})' for name in intervals.Palette._fields)
)


def save(
  row: Mapping[str, Any],
  config: Mapping[str, Any],
  directory: str | Path,
  predicts: str = '',
) -> None:
  """Writes the page of a run into its folder.

  Args:
    row: a valid row.
    config: of the run.
    directory: its workdir, with the pictures that it drew.
    predicts: see `jaxkd.report.terminal.console`.

  Raises:
    UserError: the file cannot be written.
  """
  text = page(row, config, directory, predicts)
  files.write_text(files.as_path(directory) / run_files.REPORT, text)


def page(
  row: Mapping[str, Any],
  config: Mapping[str, Any],
  directory: str | Path,
  predicts: str = '',
) -> str:
  """The page of `save`."""
  pictures = list(system.pictures(directory))
  text = system.page(row, pictures, drawing=_HERE)
  # What rows say is text: tags in it are shown, and have no effect.
  markdown = MarkdownIt('commonmark', {'html': False}).enable('table')
  body = markdown.render(text)
  drawn = intervals.draw(system.panels(row), _COLOURS)
  body = body.replace(f'<p>{_HERE}</p>', f'<div class="wide">{drawn}</div>')
  for name in pictures:
    picture = files.as_path(directory) / name
    held = base64.b64encode(picture.read_bytes()).decode()
    body = body.replace(
      f'src="{name}"', f'src="data:image/png;base64,{held}"', 1
    )
  body = body.replace('<table>', '<div class="wide"><table>')
  body = body.replace('</table>', '</table></div>')
  following = '\n'.join(terminal.directions(row, directory, predicts))
  settings = json.dumps(config, indent=1, ensure_ascii=False, default=str)
  return _PAGE.format(
    title=html.escape(f'{row["system"]} on {row["dataset"]}'),
    style=_style(),
    verdict=_VERDICTS[row['comparison']['holds']],
    said=html.escape(_said(row)),
    body=body,
    following=html.escape(following),
    config=html.escape(settings),
  )


def _said(row: Mapping[str, Any]) -> str:
  """The verdict, with the claim where there is one."""
  pair = row['comparison']
  said = wording.verdict(pair, row)
  if pair['better'] == pair['than']:  # of a config with a single arm
    values = row['arms'][pair['better']]['values']
    metric = row['metric']
    said = f'{wording.heading(metric)} {wording.mean(values, metric)}'
  return f'{pair["claim"]}: {said}' if pair['claim'] else said


def _style() -> str:
  def variables(palette):
    pairs = palette._asdict().items()
    return ' '.join(f'--{name}: {colour};' for name, colour in pairs)

  light, dark = (intervals.PALETTES[name] for name in ('light', 'dark'))
  return _STYLE % (variables(light), variables(dark))


_VERDICTS = {True: 'holds', False: 'fails', None: 'faint'}

_STYLE = """\
:root { color-scheme: light dark; --page: #ffffff; --panel: #f6f8fa; %s }
@media (prefers-color-scheme: dark) {
  :root { --page: #0d1117; --panel: #161b22; %s }
}
body { max-width: 58rem; margin: 0 auto; padding: 1rem 1rem 4rem;
  background: var(--page); color: var(--text); overflow-wrap: break-word;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Helvetica, sans-serif; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
a { color: var(--holds); }
.verdict { border-left: 4px solid; padding: 0.6rem 1rem;
  background: var(--panel); }
.wide { overflow-x: auto; } .wide svg { max-width: none; }
img { max-width: 100%%; background: #ffffff; border-radius: 4px; }
table { border-collapse: collapse; font-size: 13px; margin: 0.8rem 0; }
th, td { border-bottom: 1px solid var(--grid); text-align: left;
  padding: 0.25rem 0.7rem 0.25rem 0; white-space: nowrap; }
th { color: var(--faint); font-weight: 600; }
td { font-variant-numeric: tabular-nums; }
pre { background: var(--panel); padding: 0.8rem; overflow-x: auto;
  font-size: 12.5px; }
summary { cursor: pointer; font-weight: 600; margin-top: 2rem; }"""

_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{style}
</style>
</head>
<body>
<p class="verdict" style="border-color: var(--{verdict})">{said}</p>
{body}
<h2>What to run next</h2>
<pre>{following}</pre>
<details>
<summary>The whole config</summary>
<pre>{config}</pre>
</details>
</body>
</html>
"""
