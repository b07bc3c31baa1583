"""The site that `make docs` builds of these pages: settings of Sphinx."""

import os
import pathlib
import re
import tempfile

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
html_theme_options = {
  'navbar_persistent': [],  # the search is in the sidebar
  'show_toc_level': 2,
  'use_download_button': False,
}

# Notebooks run anew in every build, and one that fails ends the build.
nb_execution_mode = 'force'
nb_execution_raise_on_error = True
nb_execution_timeout = 1200  # seconds for a cell
nb_merge_streams = True
# They have a profile of IPython of their own, in which kernels do not warn at
# every start that their connection to this process is not encrypted.
ipython = tempfile.TemporaryDirectory()
os.environ['IPYTHONDIR'] = ipython.name
profile = pathlib.Path(ipython.name, 'profile_default')
profile.mkdir()
(profile / 'ipython_kernel_config.py').write_text(
  "c.IPKernelApp.log_level = 'ERROR'\n"
)

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


BENCHMARKS = pathlib.Path(__file__).parents[1] / 'BENCHMARKS.md'
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
  """Shows pages as GitHub does, where Sphinx would do otherwise.

  A <picture>, of which GitHub takes the file for light or for dark pages,
  becomes two images, since Sphinx does not copy its files. BENCHMARKS.md lies
  outside of this folder: the page `results` has its text.
  """
  text = source[0]
  if docname == 'results':
    page = re.sub(r'(?<=[("])docs/', '', BENCHMARKS.read_text('utf-8'))
    text = page + text[text.index('```{toctree}') :]
    app.env.note_dependency(str(BENCHMARKS))
  text = text.replace('](../BENCHMARKS.md', '](results.md')
  source[0] = PICTURE.sub(
    lambda found: (
      SHOWN.format(found[3], 'light', found[2])
      + SHOWN.format(found[1], 'dark', found[2])
    ),
    text,
  )


def setup(app):
  """Registers what is above."""
  app.connect('autodoc-skip-member', fields_once)
  app.connect('autodoc-process-docstring', formulas_as_written, priority=400)
  app.connect('source-read', as_on_github)
