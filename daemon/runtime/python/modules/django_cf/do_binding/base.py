# SPDX-License-Identifier: Apache-2.0
"""The engine under the name that generation A of the template uses."""

from django_cf.db.backends.do.base import Database, DatabaseWrapper, NoObjectDatabase

__all__ = ["Database", "DatabaseWrapper", "NoObjectDatabase"]
