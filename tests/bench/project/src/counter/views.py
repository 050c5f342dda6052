from django.db import transaction
from django.db.models import F
from django.http import HttpResponse
from django.urls import path

from .models import Counter


def hello(request, number):
    return HttpResponse("hello")


def read(request, number):
    counter, _ = Counter.objects.get_or_create(pk=number)
    return HttpResponse(str(counter.value))


def write(request, number):
    with transaction.atomic():
        if not Counter.objects.filter(pk=number).update(value=F("value") + 1):
            Counter.objects.create(pk=number, value=1)
    return HttpResponse("ok")


urlpatterns = [
    path("o/<int:number>/hello", hello),
    path("o/<int:number>/read", read),
    path("o/<int:number>/write", write),
]
