from app.wsgi import application
from django_cf import DjangoCFDurableObject
from workers import DurableObject, Response, WorkerEntrypoint


class DjangoDO(DjangoCFDurableObject, DurableObject):
    """A whole Django site with a database of its own."""

    def get_app(self):
        return application


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        host = request.headers.get("host", "").rsplit(":", 1)[0]
        tenant = host.removesuffix(".localhost")
        if tenant == host:
            # One object for all who ask for the site itself.
            name = "main"
        elif tenant in self.env.TENANTS.split(","):
            # One object per tenant: its own users, posts and sessions.
            name = f"tenant:{tenant}"
        else:
            # Objects are made by being asked: never for any name that a client sends.
            return Response("There is no such blog.\n", status=404)
        id = self.env.DO_STORAGE.idFromName(name)
        return await self.env.DO_STORAGE.get(id).fetch(request)
