"""The site that `make docs` builds of these pages: settings of Sphinx."""

import re

from jupyter_client.connect import ConnectionFileMixin

project = 'jaxkd'
copyright = 'the jaxkd authors'
extensions = [
  'myst_nb',
  'sphinx.ext.autodoc',
  'sphinx.ext.napoleon',
  'sphinx.ext.viewcode',
]
exclude_patterns = ['_build']

html_theme = 'sphinx_book_theme'
html_title = 'jaxkd'
html_theme_options = {'use_download_button': False, 'show_toc_level': 2}

# Notebooks run anew in every build, and one that fails ends the build.
nb_execution_mode = 'force'
nb_execution_raise_on_error = True
nb_execution_timeout = 1200  # seconds for a cell
# Over TCP, which is their default, kernels warn that they are not encrypted.
ConnectionFileMixin.transport.default_value = 'ipc'
nb_merge_streams = True
myst_enable_extensions = []
myst_heading_anchors = 4  # links to headings are written as on GitHub

default_role = 'py:obj'  # `Net` in a docstring is a link where there is a page
autodoc_member_order = 'bysource'
autodoc_typehints = 'description'
autodoc_typehints_description_target = 'documented_params'
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # attributes are told of by their class
napoleon_custom_sections = ['Variants']


def fields_once(app, what, name, obj, skip, options):
  """Leaves out the fields of a NamedTuple, whose docstring has them."""
  return skip or type(obj).__name__ == '_tuplegetter'


def formulas_as_written(app, what, name, obj, options, lines):
  """Makes each section `Formula:` of a docstring a block of plain text."""
  text = '\n'.join(lines)
  lines[:] = re.sub(
    r'^Formula:\n',
    '.. rubric:: Formula\n\n.. code-block:: text\n\n',
    text,
    flags=re.MULTILINE,
  ).split('\n')


PICTURE = re.compile(
  r'<picture>\s*<source media="\(prefers-color-scheme: dark\)" '
  r'srcset="([^"]*)">\s*<img alt="([^"]*)" src="([^"]*)">\s*</picture>'
)
SHOWN = """\
```{{image}} {}
:class: only-{}
:alt: {}
```
"""


def as_on_github(app, docname, source):
  """Has the site show what its own page is for, and pictures for dark pages.

  GitHub chooses between two pictures by a <picture>, whose files Sphinx does
  not copy.
  """
  text = PICTURE.sub(
    lambda found: (
      SHOWN.format(found[3], 'light', found[2])
      + SHOWN.format(found[1], 'dark', found[2])
    ),
    source[0],
  )
  source[0] = text.replace('](../BENCHMARKS.md)', '](results.md)')


def setup(app):
  """Registers what is above."""
  app.connect('autodoc-skip-member', fields_once)
  app.connect('autodoc-process-docstring', formulas_as_written, priority=400)
  app.connect('source-read', as_on_github)
