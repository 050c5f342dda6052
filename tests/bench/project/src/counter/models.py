from django.db import models
from django.db.backends.signals import connection_created
from django.dispatch import receiver


class Counter(models.Model):
    value = models.BigIntegerField(default=0)


@receiver(connection_created)
def be_durable(connection, **_):
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
