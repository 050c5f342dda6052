from app.wsgi import application
from django_cf import DjangoCFDurableObject
from workers import DurableObject, Response, WorkerEntrypoint


class Site(DjangoCFDurableObject, DurableObject):
    def get_app(self):
        return application


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        path = request.url.split("/", 3)[3]
        if path == "plain":
            return Response("hello")
        space = self.env.SITE
        return await space.get(space.idFromName(path.split("/", 2)[1])).fetch(request)
