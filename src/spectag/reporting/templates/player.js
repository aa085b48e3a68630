"use strict";

document.documentElement.classList.add("scripted"); // shows the parts that need a script

// A player with a spectrogram: a line moves over it as the sound plays, and a click plays from there.
function connectPlayer(audio) {
  audio.addEventListener("play", () => {
    for (const other of document.querySelectorAll("audio")) if (other !== audio) other.pause();
  });
  const drawing = audio.parentElement.querySelector("svg.spectrogram");
  if (!drawing) return;
  const frame = drawing.querySelector(".frame");
  const playhead = drawing.querySelector(".playhead");
  const seconds = Number(drawing.dataset.seconds);
  const width = frame.width.baseVal.value;
  const move = () => {
    playhead.setAttribute("visibility", "visible");
    playhead.setAttribute("transform", `translate(${Math.min(audio.currentTime / seconds, 1) * width} 0)`);
    if (!audio.paused) requestAnimationFrame(move);
  };
  audio.addEventListener("play", move);
  audio.addEventListener("seeked", move);
  frame.classList.add("seeks");
  frame.addEventListener("click", (event) => {
    const box = frame.getBoundingClientRect();
    audio.currentTime = seconds * Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
    audio.play().catch(() => {}); // the player shows why it can't play
  });
}
document.querySelectorAll("audio").forEach(connectPlayer);
