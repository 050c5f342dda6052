from workers import DurableObject, Response, WorkerEntrypoint


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
    """/raw/<object>/<action>"""

    async def fetch(self, request):
        space = self.env.RAW
        return await space.get(space.idFromName(request.url.rsplit("/", 2)[1])).fetch(request)
