// A table that the server writes, as a download of the browser.
import { download } from "./blobs.js";
import { GONE, PATIENCE } from "./sound_queue.js";
import { strings } from "./strings.js";

// Returns the name of the table. `settings`: format, threshold, smoothing, minSeconds, template. `progress(text)` is called
// with how far it is. Sounds that the server does not have any more are sent again.
export async function downloadTable(page, queue, sounds, settings, progress) {
  progress(strings.tag.preparing);
  const { format, threshold, smoothing, minSeconds, template } = settings;
  const ask = () => page.request("/views/tag/table", {
    method: "POST", as: "response", patience: PATIENCE,
    body: { format, sounds: sounds.map((sound) => sound.facts.id), min_confidence: threshold, smooth_windows: smoothing, min_duration_seconds: minSeconds, template },
  });
  const response = await ask().catch(async (error) => {
    if (error.status !== GONE) throw error;
    await queue.complete(sounds, (done) => progress(strings.tag.completing(done, sounds.length)));
    return ask();
  });
  const name = decodeURIComponent(/filename\*=UTF-8''(\S+)/.exec(response.headers.get("content-disposition"))[1]);
  download(await response.blob(), name);
  return name;
}
