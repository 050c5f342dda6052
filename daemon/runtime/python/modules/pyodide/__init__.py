# SPDX-License-Identifier: Apache-2.0
"""As much of Pyodide's API as Python Workers use where there is no JavaScript engine."""

__version__ = "0.28.0"
