"""Pieces of the page: its look, pictures with captions, and the two things that are dragged and clicked."""

import html
from collections.abc import Mapping
from typing import Any

CSS = """
.gradio-container { max-width: 1500px !important; width: 100% !important; margin: 0 auto !important; }
.pmv-title h1 { font-size: 1.35rem; margin: 0; }
.pmv-views { display: flex; flex-wrap: wrap; gap: 0.75rem; }
.pmv-views figure { margin: 0; flex: 1 1 9rem; min-width: 0; max-width: 26rem; }
.pmv-views img, .pmv-view img { width: 100%; display: block; border-radius: 6px; }
@media (max-width: 640px) { .pmv-views figure { flex: 0 1 calc(50% - 0.4rem); } }
.pmv-views figure:only-child { flex: 1 1 100%; }
.pmv-views figcaption { font-size: 0.85rem; opacity: 0.8; padding-top: 0.2rem; }
.pmv-view img { max-width: 36rem; margin: 0 auto; }
.pmv-soft { opacity: 0.75; }
.pmv-bar { height: 0.6rem; border-radius: 0.3rem; background: var(--border-color-primary); overflow: hidden; }
.pmv-bar > div { height: 100%; background: var(--color-accent); }
.pmv-links { display: flex; flex-wrap: wrap; gap: 0.5rem 1rem; list-style: none; padding: 0; margin: 0.3rem 0; }
"""

CROP_HTML = """
<div class="frame" style="--x:${value.x};--y:${value.y};--side:${value.side};--turn:${value.turn};--tall:${value.tall}">
<img src="${value.photo}" alt="the photo" draggable="false"><div class="square"><i></i></div></div>
"""
CROP_CSS = """
.frame { position: relative; overflow: hidden; touch-action: none; user-select: none; border-radius: 6px;
  max-width: 32rem; margin: 0 auto; }
.frame img { width: 100%; display: block; }
.square { position: absolute; box-sizing: border-box; cursor: move; border: 2px solid #fff;
  box-shadow: 0 0 0 100vmax #0007, 0 0 0 1px #000; width: calc(var(--side) * 100%); aspect-ratio: 1;
  left: calc((var(--x) - var(--side) / 2) * 100%);
  top: calc(var(--y) * 100% - var(--side) / var(--tall) * 50%); transform: rotate(calc(var(--turn) * 1deg)); }
.square i { position: absolute; right: -2px; bottom: -2px; width: 1.4rem; height: 1.4rem; cursor: nwse-resize;
  border-right: 6px solid #fff; border-bottom: 6px solid #fff; }
"""
CROP_JS = """
let held = null;
element.addEventListener('pointerdown', (event) => {
  const frame = element.querySelector('.frame'), square = event.target.closest('.square');
  if (!square) return;
  event.preventDefault();
  held = { resize: event.target.tagName === 'I', x: event.clientX, y: event.clientY, frame,
    width: frame.clientWidth, height: frame.clientHeight, from: { ...props.value }, now: { ...props.value } };
  frame.setPointerCapture(event.pointerId);
});
element.addEventListener('pointermove', (event) => {
  if (!held) return;
  const dx = (event.clientX - held.x) / held.width, dy = (event.clientY - held.y) / held.height, from = held.from;
  if (held.resize) {
    const grown = Math.max(dx, dy * held.height / held.width);
    held.now.side = Math.min(3, Math.max(0.05, from.side + 2 * grown));
  } else {
    held.now.x = Math.min(1, Math.max(0, from.x + dx));
    held.now.y = Math.min(1, Math.max(0, from.y + dy));
  }
  for (const name of ['x', 'y', 'side']) held.frame.style.setProperty('--' + name, held.now[name]);
});
const drop = () => {
  if (!held) return;
  const now = held.now, moved = JSON.stringify(now) !== JSON.stringify(held.from);
  held = null;
  if (moved) trigger('input', { x: now.x, y: now.y, side: now.side });
};
element.addEventListener('pointerup', drop);
element.addEventListener('pointercancel', drop);
"""
"""A square that is dragged on the photo, or by its corner made larger: says where it was dropped."""

CLICK_JS = """
element.addEventListener('click', (event) => {
  const image = event.target.closest('img');
  if (!image) return;
  const box = image.getBoundingClientRect();
  trigger('click', { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height });
});
"""
"""Says where a picture was clicked on, in fractions of it."""


CONFIRM_JS = """(name) => {
  if (!confirm('Remove this head with all that belongs to it?')) throw 'kept';
  return name;
}"""


def views(pictures: Mapping[str, str]) -> str:
    """Pictures side by side, by their captions: addresses of them."""
    figures = []
    for caption, uri in pictures.items():
        said = html.escape(caption)
        figures.append(f'<figure><img src="{uri}" alt="{said}"><figcaption>{said}</figcaption></figure>')
    return f'<div class="pmv-views">{"".join(figures)}</div>'


def view(uri: str, what: str) -> str:
    """One picture, as large as it fits."""
    return f'<div class="pmv-view"><img src="{uri}" alt="{html.escape(what)}"></div>'


def links(addresses: Mapping[str, str], new_page: bool = False) -> str:
    """Links by what they say."""
    where = ' target="_blank" rel="noopener"' if new_page else ""
    items = (f'<li><a href="{uri}"{where}>{html.escape(said)}</a></li>' for said, uri in addresses.items())
    return f'<ul class="pmv-links">{"".join(items)}</ul>'


def bar(part: float) -> str:
    """How much of something is done, in [0,1]."""
    percent = round(100 * min(max(part, 0.0), 1.0))
    inside = f'<div style="width:{percent}%"></div>'
    return (
        f'<div class="pmv-bar" role="progressbar" aria-valuenow="{percent}" aria-valuemin="0" aria-valuemax="100" '
        f'aria-label="progress">{inside}</div>'
    )


def paragraph(text: Any, soft: bool = False) -> str:
    """Text of whatever origin as a paragraph."""
    return f"<p{' class=pmv-soft' if soft else ''}>{html.escape(str(text))}</p>"
