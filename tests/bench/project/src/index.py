from app.wsgi import application
from django_cf import DjangoCFDurableObject
from workers import DurableObject, Response, WorkerEntrypoint


class Site(DjangoCFDurableObject, DurableObject):
    def get_app(self):
        return application


class Raw(DurableObject):
    """One counter by raw SQL."""

    def __init__(self, ctx, env):
        super().__init__(ctx, env)
        self.sql = ctx.storage.sql
        self.sql.exec("CREATE TABLE IF NOT EXISTS counter(id INTEGER PRIMARY KEY, n INTEGER)")
        self.sql.exec("INSERT OR IGNORE INTO counter VALUES(1, 0)")

    async def fetch(self, request):
        if request.url.endswith("/write"):
            self.sql.exec("UPDATE counter SET n = n + 1 WHERE id = 1")
            return Response("ok")
        rows = self.sql.exec("SELECT n FROM counter WHERE id = 1").raw().toArray().to_py()
        return Response(str(rows[0][0]))


class Default(WorkerEntrypoint):
    async def fetch(self, request):
        path = request.url.split("/", 3)[3]
        if path == "plain":
            return Response("hello")
        if path.startswith("raw/"):
            space, name = self.env.RAW, "one"
        else:
            space, name = self.env.SITE, path.split("/", 2)[1]
        return await space.get(space.idFromName(name)).fetch(request)
