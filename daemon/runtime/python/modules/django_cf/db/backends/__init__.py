# SPDX-License-Identifier: Apache-2.0
from django_cf import _extend_path

__path__ = _extend_path(list(__path__), "db", "backends")
