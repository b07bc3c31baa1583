"""A Google Cloud Storage of its own for tests: no network, no package for it.

TensorStore reaches it over HTTP, on this machine, as it would the real one;
what goes through fsspec finds the same objects in a file system made here.
"""

import http.server
import io
import json
import re
import sys
import threading
import types
from urllib.parse import parse_qs, unquote, urlsplit

import fsspec
import pytest
from fsspec.spec import AbstractFileSystem


class Refusal(OSError):
  """As gcsfs raises for a bucket in which one may not write."""


class Store:
  """All objects, by bucket and name, and whether more may be written."""

  def __init__(self):
    self.objects: dict[str, tuple[bytes, int]] = {}  # bytes and generation
    self.lock, self.count = threading.Lock(), 0
    self.refuses = ''  # what names must match that cannot be written

  def put(self, name, value, generation=None):
    """Writes an object, if its generation is this one."""
    if self.refuses and re.search(self.refuses, name):
      raise Refusal('Forbidden: you have no storage.objects.create access')
    with self.lock:
      if generation not in (None, self.objects.get(name, (b'', 0))[1]):
        raise FileExistsError(name)
      self.count += 1
      self.objects[name] = bytes(value), self.count

  def names(self):
    return sorted(self.objects)


STORE = Store()


class Buckets(AbstractFileSystem):
  """The part of gcsfs that is used."""

  protocol = ('gcs', 'gs')
  cachable = False

  def ls(self, path, detail=True, **kwargs):
    path = self._strip_protocol(path)
    found = {}
    for name, (value, _) in list(STORE.objects.items()):
      if name == path:
        found[name] = dict(name=name, size=len(value), type='file')
      elif name.startswith(f'{path}/'):
        first, *rest = name.removeprefix(f'{path}/').split('/')
        own, kind = f'{path}/{first}', 'directory' if rest else 'file'
        size = 0 if rest else len(value)
        found[own] = dict(name=own, size=size, type=kind)
    if not found:
      raise FileNotFoundError(path)
    return list(found.values()) if detail else sorted(found)

  def mkdir(self, path, create_parents=True, **kwargs):
    pass

  def makedirs(self, path, exist_ok=False):
    pass

  def rm_file(self, path):
    with STORE.lock:
      STORE.objects.pop(self._strip_protocol(path), None)  # or a folder

  def pipe_file(self, path, value, mode='overwrite', **kwargs):
    STORE.put(
      self._strip_protocol(path), value, 0 if mode == 'create' else None
    )

  def _open(self, path, mode='rb', **kwargs):
    path = self._strip_protocol(path)
    if 'r' in mode:
      if path not in STORE.objects:
        raise FileNotFoundError(path)
      return io.BytesIO(STORE.objects[path][0])
    return _Written(path)


class _Written(io.BytesIO):
  def __init__(self, path):
    super().__init__()
    self._path = path

  def close(self):
    if not self.closed:
      STORE.put(self._path, self.getvalue())
    super().close()


class _Handler(http.server.BaseHTTPRequestHandler):
  """The part of the JSON API that TensorStore uses."""

  protocol_version = 'HTTP/1.1'

  def log_message(self, *args):
    pass

  def _answer(self, status, body=b'', generation=0):
    self.send_response(status)
    self.send_header('Content-Length', str(len(body)))
    if generation:
      self.send_header('x-goog-generation', str(generation))
    self.end_headers()
    self.wfile.write(body)

  def _asked(self):
    """The object, or the bucket with a slash, and the query."""
    parts = urlsplit(self.path)
    query = {k: v[0] for k, v in parse_qs(parts.query).items()}
    found = re.fullmatch(r'(?:/upload)?/storage/v1/b/([^/]+)/o/?(.*)',
                         parts.path)  # fmt: skip
    return f'{found[1]}/{unquote(found[2])}', query

  def _wanted(self, query):
    given = query.get('ifGenerationMatch')
    return None if given is None else int(given)

  def do_GET(self):
    name, query = self._asked()
    if name.endswith('/') and name.count('/') == 1:
      return self._list(name, query)
    if name not in STORE.objects:
      return self._answer(404)
    value, generation = STORE.objects[name]
    if query.get('ifGenerationNotMatch') == str(generation):
      return self._answer(304)
    if self._wanted(query) not in (None, generation):
      return self._answer(412)
    if 'alt' not in query:
      return self._answer(200, _described(name))
    asked = re.fullmatch(r'bytes=(\d*)-(\d*)', self.headers.get('Range', ''))
    if not asked:
      return self._answer(200, value, generation)
    start, last = int(asked[1] or 0), int(asked[2] or len(value) - 1)
    if not asked[1]:  # the last bytes
      start, last = len(value) - int(asked[2]), len(value) - 1
    self.send_response(206)
    part = value[start : last + 1]
    self.send_header('Content-Length', str(len(part)))
    end = start + len(part) - 1
    self.send_header('Content-Range', f'bytes {start}-{end}/{len(value)}')
    self.send_header('x-goog-generation', str(generation))
    self.end_headers()
    self.wfile.write(part)

  def _list(self, bucket, query):
    prefix = f'{bucket}{query.get("prefix", "")}'
    with STORE.lock:
      names = sorted(name for name in STORE.objects if name.startswith(prefix))
    items = [json.loads(_described(name)) for name in names]
    self._answer(200, json.dumps({'items': items}).encode())

  def do_POST(self):
    bucket, query = self._asked()
    value = self.rfile.read(int(self.headers['Content-Length']))
    name = bucket + query['name']
    try:
      STORE.put(name, value, self._wanted(query))
    except FileExistsError:
      return self._answer(412)
    except Refusal as refusal:
      text = json.dumps({'error': {'code': 403, 'message': str(refusal)}})
      return self._answer(403, text.encode())
    self._answer(200, _described(name))

  def do_DELETE(self):
    name, query = self._asked()
    with STORE.lock:
      if name not in STORE.objects:
        return self._answer(404)
      if self._wanted(query) not in (None, STORE.objects[name][1]):
        return self._answer(412)
      del STORE.objects[name]
    self._answer(204)


def _described(name):
  value, generation = STORE.objects[name]
  held = dict(
    name=name.partition('/')[2],
    bucket=name.partition('/')[0],
    size=str(len(value)),
    generation=str(generation),
  )
  return json.dumps(held).encode()


@pytest.fixture(scope='session')
def _server():
  with http.server.ThreadingHTTPServer(('127.0.0.1', 0), _Handler) as server:
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}'
    server.shutdown()


@pytest.fixture
def bucket(_server, monkeypatch):
  """An empty store, with all buckets that are written to."""
  from orbax.checkpoint._src.path import gcs_utils

  monkeypatch.setenv('TENSORSTORE_GCS_HTTP_URL', _server)
  # Else it would look for credentials on this machine and on the network.
  monkeypatch.setenv('GOOGLE_AUTH_TOKEN_FOR_TESTING', 'token')
  monkeypatch.setenv('EPATH_USE_TF', 'false')
  monkeypatch.setitem(sys.modules, 'gcsfs', types.ModuleType('gcsfs'))
  monkeypatch.setattr(
    gcs_utils, 'is_hierarchical_namespace_enabled', lambda path: False
  )
  for name in Buckets.protocol:
    fsspec.register_implementation(name, Buckets, clobber=True)
  STORE.__init__()
  STORE.system = Buckets
  return STORE
