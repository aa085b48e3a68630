// The files that people drop or choose: single ones, many, or those in folders.

export const AUDIO = /\.(wav|wave|bwf|rf64|w64|flac|ogg|oga|opus|mp3|mp2|m4a|mp4|aac|webm|aif|aiff|aifc|au|snd|caf|amr|wma|mka|mkv|mov|3gp)$/i;

// The files of a drop, also those in dropped folders: { files, unreadable }, the second with names.
export async function filesOf(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  const found = { files: entries.length === 0 ? [...transfer.files] : [], unreadable: [] };
  for (const entry of entries) await find(entry, true, found);
  return found;
}

// Of a folder, only sounds; a file that was dropped itself is always taken, so that its refusal is seen.
async function find(entry, isChosen, found) {
  if (entry.isFile && !isChosen && !AUDIO.test(entry.name)) return;
  try {
    if (entry.isFile) found.files.push(await new Promise((resolve, reject) => { entry.file(resolve, reject); }));
    else for (const child of await childrenOf(entry)) await find(child, false, found);
  } catch {
    found.unreadable.push(entry.name); // such as a file that nobody may read: the others are taken
  }
}

async function childrenOf(folder) {
  const reader = folder.createReader();
  const children = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => { reader.readEntries(resolve, reject); }); // up to 100
    if (some.length === 0) return children;
    children.push(...some);
  }
}
