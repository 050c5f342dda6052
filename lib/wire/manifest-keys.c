/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/wire/manifest-keys.h"

/* Source: Cloudflare's "Wrangler configuration" page and Wrangler 4's own table of keys. */
static const ManifestKey keys[] = {
        { "$schema", MANIFEST_KEY_NOTED, "For editors alone." },
        { "name", MANIFEST_KEY_USED,
                "The app's name: a-z, 0-9, - and _, at most 63. Ids of objects depend on it." },
        { "main", MANIFEST_KEY_USED,
                "The entry file, a .py file below the folder of wrangler.jsonc." },
        { "compatibility_date", MANIFEST_KEY_USED,
                "YYYY-MM-DD; kept with the version. There is one runtime, so it switches "
                "nothing." },
        { "compatibility_flags", MANIFEST_KEY_USED,
                "Kept with the version. A note names each flag that is not about Python." },
        { "durable_objects", MANIFEST_KEY_USED, "The bindings of classes." },
        { "durable_objects.bindings", MANIFEST_KEY_USED,
                "A list, one entry to a class that env names." },
        { "durable_objects.bindings[].name", MANIFEST_KEY_USED,
                "env.NAME: letters, digits and _." },
        { "durable_objects.bindings[].class_name", MANIFEST_KEY_USED,
                "The class; a migration must have created it." },
        { "durable_objects.bindings[].script_name", MANIFEST_KEY_USED,
                "This app's own name alone; another app's class is refused." },
        { "durable_objects.bindings[].environment", MANIFEST_KEY_REFUSED,
                "There are no environments here: deploy the other one as an app of its own name." },
        { "migrations", MANIFEST_KEY_USED,
                "The whole history of classes. What has been played is remembered by its tag." },
        { "migrations[].tag", MANIFEST_KEY_USED, "Its name, once in the file." },
        { "migrations[].new_sqlite_classes", MANIFEST_KEY_USED, "Classes to create." },
        { "migrations[].new_classes", MANIFEST_KEY_USED,
                "The same: every class is kept in SQLite here." },
        { "migrations[].renamed_classes", MANIFEST_KEY_USED,
                "A list of {from, to}. Objects and ids stay." },
        { "migrations[].renamed_classes[].from", MANIFEST_KEY_USED, "The class's old name." },
        { "migrations[].renamed_classes[].to", MANIFEST_KEY_USED, "Its new name." },
        { "migrations[].deleted_classes", MANIFEST_KEY_USED,
                "Classes to take out of use. Their files stay until an operator deletes them." },
        { "migrations[].transferred_classes", MANIFEST_KEY_USED,
                "A list of {from, from_script, to}: classes of another app of this host." },
        { "migrations[].transferred_classes[].from", MANIFEST_KEY_USED,
                "The class's name in the other app." },
        { "migrations[].transferred_classes[].from_script", MANIFEST_KEY_USED, "The other app." },
        { "migrations[].transferred_classes[].to", MANIFEST_KEY_USED,
                "The class's name in this app." },
        { "assets", MANIFEST_KEY_USED, "Static files, served before any object." },
        { "assets.directory", MANIFEST_KEY_USED,
                "The folder that holds them, below that of wrangler.jsonc." },
        { "assets.binding", MANIFEST_KEY_USED, "env.NAME with a fetch() for them." },
        { "assets.html_handling", MANIFEST_KEY_USED,
                "\"auto-trailing-slash\" or \"none\": a folder's index.html answers for it. Other "
                "values are refused." },
        { "assets.not_found_handling", MANIFEST_KEY_USED,
                "\"none\": what is no file goes to the app. Other values are refused." },
        { "assets.run_worker_first", MANIFEST_KEY_USED,
                "false: files come first. Other values are refused." },
        { "site", MANIFEST_KEY_USED, "Workers Sites, the older form of assets." },
        { "site.bucket", MANIFEST_KEY_USED, "As assets.directory." },
        { "site.entry-point", MANIFEST_KEY_REFUSED, "Name the entry file with \"main\"." },
        { "site.include", MANIFEST_KEY_REFUSED,
                "Every file of the bucket is served: leave out of the folder what must not be." },
        { "site.exclude", MANIFEST_KEY_REFUSED,
                "Every file of the bucket is served: leave out of the folder what must not be." },
        { "build", MANIFEST_KEY_USED, "What dev and deploy run before they read the folder." },
        { "build.command", MANIFEST_KEY_USED, "Run by sh." },
        { "build.cwd", MANIFEST_KEY_USED, "Where it runs, below the folder of wrangler.jsonc." },
        { "build.watch_dir", MANIFEST_KEY_NOTED, "durablectl dev watches the whole folder." },
        { "build.upload", MANIFEST_KEY_REFUSED,
                "A key of Wrangler 1: use \"main\" and \"rules\"." },
        { "vars", MANIFEST_KEY_USED, "env.NAME: any JSON." },
        { "durabled", MANIFEST_KEY_USED, "What is ours alone; Wrangler warns of it and goes on." },
        { "durabled.django_cf", MANIFEST_KEY_USED,
                "\"ours\" (default): our django_cf; \"vendored\": the app's own copy." },
        { "durabled.isolation", MANIFEST_KEY_USED,
                "\"shared\": objects share an interpreter. \"process\" is refused in this "
                "version." },
        { "durabled.migrate", MANIFEST_KEY_USED,
                "\"auto\" (default): an object's first event after a deploy migrates it; "
                "\"manual\"." },
        { "durabled.management", MANIFEST_KEY_USED,
                "\"token\" (default): /__name__/ paths need the admin token; \"open\"." },
        { "durabled.routes", MANIFEST_KEY_USED,
                "Which object answers what, so that no entrypoint has to run." },
        { "durabled.routes[].pattern", MANIFEST_KEY_USED,
                "HOST/PATH or /PATH: {placeholder} for a label or a segment, * at the end." },
        { "durabled.routes[].binding", MANIFEST_KEY_USED, "A binding of durable_objects." },
        { "durabled.routes[].name", MANIFEST_KEY_USED,
                "The object's name; may hold the pattern's placeholders." },
        { "env", MANIFEST_KEY_NOTED,
                "Environments are not read: the top level alone is deployed." },
        { "rules", MANIFEST_KEY_NOTED, "The whole folder is installed, with every kind of file." },
        { "python_modules", MANIFEST_KEY_NOTED,
                "The whole folder is installed; dependencies have a folder of their own." },
        { "observability", MANIFEST_KEY_NOTED,
                "Logs go to the journal, figures to durtop and Prometheus." },
        { "logpush", MANIFEST_KEY_NOTED, "Logs stay on this machine, in the journal." },
        { "account_id", MANIFEST_KEY_NOTED, "There are no accounts here." },
        { "zone_id", MANIFEST_KEY_NOTED, "There are no zones here." },
        { "workers_dev", MANIFEST_KEY_NOTED, "The addresses are those of the service's settings." },
        { "preview_urls", MANIFEST_KEY_NOTED,
                "The addresses are those of the service's settings." },
        { "previews", MANIFEST_KEY_NOTED, "There are no preview deployments here." },
        { "route", MANIFEST_KEY_NOTED,
                "Cloudflare's zones: the app answers on the addresses of the service's settings." },
        { "routes", MANIFEST_KEY_NOTED,
                "Cloudflare's zones: the app answers on the addresses of the service's settings." },
        { "placement", MANIFEST_KEY_NOTED, "There is one place: this machine." },
        { "compliance_region", MANIFEST_KEY_NOTED, "There is one place: this machine." },
        { "limits", MANIFEST_KEY_NOTED, "Limits are those of the service's settings." },
        { "usage_model", MANIFEST_KEY_NOTED, "Nothing is billed." },
        { "cache", MANIFEST_KEY_NOTED, "Responses are not cached in front of the app." },
        { "dev", MANIFEST_KEY_NOTED,
                "Settings of wrangler dev; durablectl dev has options of its own." },
        { "send_metrics", MANIFEST_KEY_NOTED, "Nothing is sent." },
        { "secrets", MANIFEST_KEY_NOTED,
                "Names of secrets only: their values come from the service's settings or vars." },
        { "keep_vars", MANIFEST_KEY_NOTED,
                "There is no dashboard: vars of the file are the ones in force." },
        { "legacy_env", MANIFEST_KEY_NOTED, "Environments are not read." },
        { "base_dir", MANIFEST_KEY_NOTED, "The whole folder is installed." },
        { "find_additional_modules", MANIFEST_KEY_NOTED, "The whole folder is installed." },
        { "preserve_file_names", MANIFEST_KEY_NOTED, "Files keep their names always." },
        { "no_bundle", MANIFEST_KEY_NOTED, "Nothing is bundled." },
        { "minify", MANIFEST_KEY_NOTED, "Nothing is bundled." },
        { "keep_names", MANIFEST_KEY_NOTED, "Nothing is bundled." },
        { "upload_source_maps", MANIFEST_KEY_NOTED, "Nothing is bundled." },
        { "tsconfig", MANIFEST_KEY_NOTED, "There is no TypeScript here." },
        { "jsx_factory", MANIFEST_KEY_NOTED, "There is no JSX here." },
        { "jsx_fragment", MANIFEST_KEY_NOTED, "There is no JSX here." },
        { "first_party_worker", MANIFEST_KEY_NOTED, "Means something to Cloudflare alone." },
        { "d1_databases", MANIFEST_KEY_REFUSED,
                "There is no D1: use a Durable Object's own SQLite database." },
        { "kv_namespaces", MANIFEST_KEY_REFUSED,
                "There is no Workers KV: use a Durable Object's storage." },
        { "r2_buckets", MANIFEST_KEY_REFUSED, "There is no R2: use a folder, or an S3 client." },
        { "queues", MANIFEST_KEY_REFUSED,
                "There are no queues: use a Durable Object with an alarm." },
        { "services", MANIFEST_KEY_REFUSED,
                "There are no service bindings: call the other app over HTTP." },
        { "workflows", MANIFEST_KEY_REFUSED,
                "There are no workflows: use a Durable Object with alarms." },
        { "triggers", MANIFEST_KEY_USED, "Only with an empty list of crons." },
        { "triggers.crons", MANIFEST_KEY_REFUSED,
                "There are no cron triggers: use an alarm, or a systemd timer that calls the "
                "app." },
        { "ai", MANIFEST_KEY_REFUSED, "There is no Workers AI: call a model's HTTP API." },
        { "ai_search", MANIFEST_KEY_REFUSED,
                "There is no AI Search: call a search service over HTTP." },
        { "ai_search_namespaces", MANIFEST_KEY_REFUSED,
                "There is no AI Search: call a search service over HTTP." },
        { "analytics_engine_datasets", MANIFEST_KEY_REFUSED,
                "There is no Analytics Engine: write to a Durable Object's database." },
        { "artifacts", MANIFEST_KEY_REFUSED,
                "There is no Artifacts store: use a folder or a git server." },
        { "browser", MANIFEST_KEY_REFUSED,
                "There is no browser rendering: call a browser of your own." },
        { "cloudchamber", MANIFEST_KEY_REFUSED,
                "There are no containers: run them beside the service." },
        { "containers", MANIFEST_KEY_REFUSED,
                "There are no containers: run them beside the service." },
        { "dispatch_namespaces", MANIFEST_KEY_REFUSED,
                "There is no Workers for Platforms: deploy each app by itself." },
        { "flagship", MANIFEST_KEY_REFUSED,
                "There is no Flagship: keep flags in vars or in an object." },
        { "hyperdrive", MANIFEST_KEY_REFUSED,
                "There is no Hyperdrive: connect to the database directly." },
        { "images", MANIFEST_KEY_REFUSED,
                "There is no Images binding: use a library such as Pillow." },
        { "logfwdr", MANIFEST_KEY_REFUSED, "There is no logfwdr: logs go to the journal." },
        { "media", MANIFEST_KEY_REFUSED,
                "There are no Media Transformations: use a library of your own." },
        { "mtls_certificates", MANIFEST_KEY_REFUSED,
                "There is no mTLS binding: give the certificate to your HTTP client." },
        { "pipelines", MANIFEST_KEY_REFUSED,
                "There are no Pipelines: write to a Durable Object's database." },
        { "ratelimits", MANIFEST_KEY_REFUSED,
                "There is no rate limit binding: count in a Durable Object, or limit in the "
                "proxy." },
        { "secrets_store_secrets", MANIFEST_KEY_REFUSED,
                "There is no Secrets Store: use vars, or a file that only the service reads." },
        { "send_email", MANIFEST_KEY_REFUSED, "There is no email binding: use smtplib." },
        { "stream", MANIFEST_KEY_REFUSED, "There is no Stream: serve the media yourself." },
        { "streaming_tail_consumers", MANIFEST_KEY_REFUSED,
                "There are no tail Workers: read the journal." },
        { "tail_consumers", MANIFEST_KEY_REFUSED, "There are no tail Workers: read the journal." },
        { "unsafe", MANIFEST_KEY_REFUSED,
                "Bindings of Cloudflare that Wrangler does not know are not here either." },
        { "unsafe_hello_world", MANIFEST_KEY_REFUSED, "This example binding is not here." },
        { "vectorize", MANIFEST_KEY_REFUSED,
                "There is no Vectorize: use an SQLite extension or a vector database." },
        { "version_metadata", MANIFEST_KEY_REFUSED,
                "There is no version binding: put what you need into vars." },
        { "vpc_networks", MANIFEST_KEY_REFUSED,
                "There are no VPC bindings: connect to the address directly." },
        { "vpc_services", MANIFEST_KEY_REFUSED,
                "There are no VPC bindings: connect to the address directly." },
        { "worker_loaders", MANIFEST_KEY_REFUSED,
                "There is no Worker Loader: deploy each app by itself." },
        { "wasm_modules", MANIFEST_KEY_REFUSED,
                "There are no JavaScript or WebAssembly Workers here." },
        { "text_blobs", MANIFEST_KEY_REFUSED, "Read the file from the app's folder." },
        { "data_blobs", MANIFEST_KEY_REFUSED, "Read the file from the app's folder." },
        { "define", MANIFEST_KEY_REFUSED,
                "Nothing is bundled, so nothing is substituted: use vars." },
        { "alias", MANIFEST_KEY_REFUSED,
                "Nothing is bundled, so no module is replaced: change the import." },
        { "pages_build_output_dir", MANIFEST_KEY_REFUSED,
                "This is a Pages project: name the folder with assets.directory." },
        { "type", MANIFEST_KEY_REFUSED, "A key of Wrangler 1: remove it." },
        { "webpack_config", MANIFEST_KEY_REFUSED, "A key of Wrangler 1: remove it." },
};

const ManifestKey *manifest_get_keys(size_t *ret_n)
{
        *ret_n = ELEMENTSOF(keys);
        return keys;
}

/* The last name of the row's path when it stands right below parent; NULL when it does not. */
static const char *name_below(const ManifestKey *key, const char *parent)
{
        size_t n = strlen(parent);
        const char *name = key->path;

        if (n) {
                if (strncmp(key->path, parent, n) != 0 || key->path[n] != '.')
                        return NULL;
                name += n + 1;
        }
        return strpbrk(name, ".[") ? NULL : name;
}

const ManifestKey *manifest_find_key(const char *parent, const char *name)
{
        for (size_t i = 0; i < ELEMENTSOF(keys); i++) {
                const char *below = name_below(&keys[i], parent);

                if (below && strcmp(below, name) == 0)
                        return &keys[i];
        }
        return NULL;
}

static char fold(char c)
{
        return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c == '-' ? '_' : c;
}

/* Levenshtein's distance, where case and - or _ make no difference; both at most 32 long. */
static size_t distance(Slice a, Slice b)
{
        size_t row[33];

        for (size_t j = 0; j <= b.len; j++)
                row[j] = j;
        for (size_t i = 1; i <= a.len; i++) {
                size_t diagonal = row[0];

                row[0] = i;
                for (size_t j = 1; j <= b.len; j++) {
                        size_t change =
                                diagonal + (fold(a.data[i - 1]) != fold(b.data[j - 1]) ? 1 : 0);

                        diagonal = row[j];
                        row[j] = MIN(row[j], row[j - 1]) + 1;
                        row[j] = MIN(row[j], change);
                }
        }
        return row[b.len];
}

const char *manifest_suggest_key(const char *parent, const char *name)
{
        size_t length = strlen(name), best = length / 3 + 1;
        const char *found = NULL;

        if (length > 32)
                return NULL;
        for (size_t i = 0; i < ELEMENTSOF(keys); i++) {
                const char *below = name_below(&keys[i], parent);
                size_t d;

                if (!below || keys[i].use == MANIFEST_KEY_REFUSED)
                        continue;
                d = distance(slice_of(name, length), slice_from(below));
                if (d < best) {
                        best = d;
                        found = below;
                }
        }
        return found;
}
