"""One project for all sides: BENCH_DB names a plain SQLite file, else the object is the database."""

import os

SECRET_KEY = "for the bench alone"
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = ["counter"]
MIDDLEWARE = []
ROOT_URLCONF = "counter.views"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

if "BENCH_DB" in os.environ:
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["BENCH_DB"],
            "CONN_MAX_AGE": None, "OPTIONS": {"timeout": 30},
        }
    }
else:
    DATABASES = {"default": {"ENGINE": "django_cf.db.backends.do"}}
