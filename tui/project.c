/* SPDX-License-Identifier: Apache-2.0 */
#include "tui/project.h"

#include "lib/base/file.h"
#include "tui/command.h"
#include "tui/process.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

#define OUTPUT_MAX (256u << 10)

static void print_notes(const Project *project)
{
        const Manifest *manifest = project->manifest;

        for (size_t i = 0; i < manifest->n_notes; i++)
                fprintf(stderr, "wrangler.jsonc:%u: note: %s: %s\n", manifest->notes[i].line,
                        manifest->notes[i].key, manifest->notes[i].message);
}

static int read_manifest(Project *project)
{
        _cleanup_(free_p) char *path = path_join(project->directory, "wrangler.jsonc");
        Buf text = BUF_INIT(0);
        ManifestError error = { 0 };
        int r;

        if (!path)
                return EXIT_FAILED;
        r = file_read(path, 4u << 20, &text);
        if (r == -ENOENT)
                complain("'%s' has no wrangler.jsonc: name a project's folder, or make one with "
                         "'durablectl init DIR'",
                        project->directory);
        else if (r)
                complain("cannot read '%s': %s", path, strerror(-r));
        else
                r = manifest_parse(buf_slice(&text), &project->manifest, &error);
        buf_done(&text);
        if (r > 0)
                fprintf(stderr, "%s:%u: error: %s%s%s\n", path, error.line, error.key,
                        *error.key ? ": " : "", error.message);
        return r ? EXIT_FAILED : 0;
}

static int install_dependencies(Project *project)
{
        _cleanup_(free_p) char *tool = NULL, *deps = path_join(project->state, "deps");
        _cleanup_(json_decref_p) json_t *answer = NULL;
        const char *argv[] = { NULL, project->directory, deps, project->manifest->main,
                project->manifest->django_cf == MANIFEST_DJANGO_VENDORED ? "vendored" : "ours",
                NULL };
        Buf out = BUF_INIT(OUTPUT_MAX), errors = BUF_INIT(OUTPUT_MAX);
        int r;

        r = deps ? companion_find("prepare-python", &tool) : -ENOMEM;
        if (r) {
                complain("cannot find prepare-python: %s", strerror(-r));
                return EXIT_FAILED;
        }
        argv[0] = tool;
        r = process_run(argv, NULL, NULL, &out, &errors);
        if (errors.len)
                fwrite(buf_data(&errors), 1, errors.len, stderr);
        if (r == 0)
                answer = json_loadb(buf_data(&out) ? buf_data(&out) : "", out.len, 0, NULL);
        buf_done(&out);
        buf_done(&errors);
        if (!answer)
                return EXIT_FAILED;
        fprintf(stderr, "dependencies: %s\n", json_string_value(json_object_get(answer, "note")));
        project->python_path = strdup(json_string_value(json_object_get(answer, "path")));
        return project->python_path ? 0 : EXIT_FAILED;
}

/* Build commands call "python", which Debian does not have: a folder with that name goes first on
 * PATH. */
static int make_python_shim(const Project *project, char **ret_path_variable)
{
        _cleanup_(free_p) char *folder = path_join(project->state, "bin");
        _cleanup_(free_p) char *link = folder ? path_join(folder, "python") : NULL;
        const char *path = getenv("PATH");
        int r;

        if (!link)
                return -ENOMEM;
        r = dir_create(folder, 0755);
        if (r)
                return r;
        if (symlink("/usr/bin/python3", link) && errno != EEXIST)
                return -errno;
        if (asprintf(ret_path_variable, "PATH=%s:%s", folder, path ? path : "/usr/bin:/bin") < 0)
                return -ENOMEM;
        return 0;
}

static int run_build(Project *project)
{
        const char *const argv[] = { "/bin/sh", "-c", project->manifest->build_command, NULL };
        _cleanup_(free_p) char *path = NULL, *python_path = NULL, *modules = NULL, *cwd = NULL;
        const char *environment[3] = { 0 };
        Buf said = BUF_INIT(OUTPUT_MAX);
        int r;

        if (!project->manifest->build_command)
                return 0;
        r = companion_find("modules", &modules);
        if (!r)
                r = make_python_shim(project, &path);
        if (!r && asprintf(&python_path, "PYTHONPATH=%s%s%s", modules,
                          *project->python_path ? ":" : "", project->python_path) < 0)
                r = -ENOMEM;
        cwd = project->manifest->build_cwd
                      ? path_join(project->directory, project->manifest->build_cwd)
                      : strdup(project->directory);
        if (r || !cwd) {
                complain("cannot prepare the build command: %s", strerror(r ? -r : ENOMEM));
                return EXIT_FAILED;
        }
        environment[0] = path;
        environment[1] = python_path;
        fprintf(stderr, "building: %s\n", project->manifest->build_command);
        r = process_run(argv, cwd, environment, NULL, &said);
        if (r) {
                if (said.len)
                        fwrite(buf_data(&said), 1, said.len, stderr);
                if (r < 0)
                        complain("the build command cannot be run: %s", strerror(-r));
                else
                        complain("build.command of wrangler.jsonc ended with status %d: %s", r,
                                project->manifest->build_command);
        }
        buf_done(&said);
        return r ? EXIT_FAILED : 0;
}

int project_check(const char *directory)
{
        _cleanup_(free_p) char *path = path_join(directory, "wrangler.jsonc");

        if (!path)
                return EXIT_FAILED;
        if (access(path, F_OK) == 0)
                return 0;
        complain("'%s' has no wrangler.jsonc: name a project's folder, or make one with "
                 "'durablectl init DIR'",
                directory);
        return EXIT_FAILED;
}

int project_prepare(const char *directory, const char *state, bool first, Project **ret)
{
        _cleanup_(project_free_p) Project *project = calloc(1, sizeof *project);
        int r;

        if (!project)
                return EXIT_FAILED;
        project->directory = realpath(directory, NULL);
        if (!project->directory) {
                complain("cannot use '%s': %s", directory, strerror(errno));
                return EXIT_FAILED;
        }
        project->state = strdup(state);
        if (!project->state)
                return EXIT_FAILED;
        r = read_manifest(project);
        if (r)
                return r;
        if (first)
                print_notes(project);
        r = install_dependencies(project);
        if (!r)
                r = run_build(project);
        if (r)
                return r;
        *ret = TAKE_PTR(project);
        return 0;
}

Project *project_free(Project *project)
{
        if (!project)
                return NULL;
        manifest_free(project->manifest);
        free(project->directory);
        free(project->state);
        free(project->python_path);
        free(project);
        return NULL;
}
