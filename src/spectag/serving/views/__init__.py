"""The views of the page: one module for each, with its requests, and one script in `serving/static`.

A view has a short name, such as `tag`, and consists of

1. `serving/views/NAME.py` with a `VIEW = View("NAME", routes)` (`spectag.serving.view`). `routes(context)` returns
   Starlette routes; the server mounts them below `/views/NAME/`. Errors are raised as `ProblemError`. Whatever reads
   a file of a stranger, or computes for more than a few milliseconds, is a module-level function `(limits, question)`
   that runs in a worker process: `await context.workers.ask(Question(function, path, name, query))`. It returns a JSON
   object, bytes, or a `Refusal`. `context.drawing` is a pool of its own for short work that must not wait for tagging.
   State that lives in this process is created in `routes`, one for each application. Files go below
   `context.folder()`, which is deleted when the server ends. Libraries that take long to import are imported where they
   are used, because the page is shown a second after the start.
   `context.project` is the project of the server (`spectag.serving.project.project`). A view that is of no use without
   one has `needs_project`. Work that takes longer than a request is a job of the project: a function in `JOB_KINDS`
   that runs in a process of its own, `context.project.jobs.start(kind, query, title)`. A new version of the model is
   written within `context.project.versions.new(...)`.
2. Its entry in `VIEWS` of `spectag.serving.page`, in the order of the navigation. The navigation shows no other views.
3. `serving/static/NAME.js`, an ES module with `export function mount(element, page)`. It is called once, when the view
   is first shown, with an empty `<section>`. It may return `{ shown(), hidden(), changed(), keys: { "space": () => ...
   } }`: `keys` work while the view is shown and no field has the focus, and `?` lists them with the texts of the
   strings `NAME.keys`; `changed` is called after another version of the model was opened. `page` has `request(path,
   options)` (see `api.js`), `announce(text)` for screen readers, `info` (the answer of `/views`: the names of the
   views, the project, the version, the model, its labels with thresholds and colours), and `refresh()`, to call after
   a request that has opened another version. `/project/jobs` (`job_routes.py`) tells how far jobs are.
4. Its texts in `static/strings.js`, under `views.NAME` (its name in the navigation) and `NAME`. No other file has
   texts.
5. Its styles in `static/NAME.css`, all below a class of the view, with the variables of the shared `style.css`. The
   server joins them with `page.css`.

A view that needs a file or folder of the computer lets people choose it with `chooseFile({ title, kinds, start })` or
`chooseFolder({ title, kinds, start })` of `folder_picker.js`. Both return a promise of its path, or of null if the
dialog was closed. `kinds` are some of "sound", "table", "model" and "project". In Python, `allowed_folders(context)` of
`spectag.serving.folder_routes` has `resolve(text)`, which turns such a path into a `Path`, or raises a ProblemError for
one outside the folders that the page may read; `resolve_new(text)` is for a file or folder that does not exist yet. Use
one of them for every path in a request, at once before it is used.

Each view shows four states: empty (what to do first), loading, failed (what, why, and a button to try again) and full;
`states.js` makes the first three. Everything from a server or a file is shown as text: build elements with `h()` of
`elements.js`, never HTML from strings. The policy of the page allows no inline script or style, and nothing from
elsewhere; styles set from a script (`element.style.left = ...`) work.
"""
