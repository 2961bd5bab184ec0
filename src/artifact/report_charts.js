// SPDX-License-Identifier: Apache-2.0
// What the charts of all reports share; beside Chart.js.

// Colours come from the style sheet, which knows the reader's scheme.
const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
let stops, apart;
function readScheme() {
  const list = name => css(name).split(',').map(hex => [1, 3, 5].map(
    at => parseInt(hex.trim().slice(at, at + 2), 16)));
  stops = list('--scale');
  apart = list('--apart');
  Chart.defaults.color = css('--soft');
  Chart.defaults.borderColor = css('--line');
}
function colour(t, list = stops) {
  const at = Math.min(Math.max(t, 0), 1) * (list.length - 1);
  const i = Math.min(Math.floor(at), list.length - 2);
  const mix = list[i].map((c, k) => c + (list[i + 1][k] - c) * (at - i));
  return 'rgb(' + mix.map(Math.round).join(',') + ')';
}
const inks = ['#4a7fc1', '#cc4c4c', '#4f9d69', '#e08e2b', '#9a6cc4', '#2f9aa8',
              '#c2568a', '#8a8f3a'];

function fill(id, names, changed) {
  const select = document.getElementById(id);
  names.forEach(([value, text]) => select.add(new Option(text, value)));
  select.addEventListener('change', () => changed(select.value));
  changed(select.value);
}
// Ticks at whole numbers below `count`, at most `most` of them.
function whole(count, most) {
  const step = Math.ceil(count / most);
  return Array.from({length: Math.ceil(count / step)}, (_, i) => ({value: i * step}));
}
Chart.defaults.animation = false;
Chart.defaults.maintainAspectRatio = false;
Chart.defaults.plugins.legend.display = false;
readScheme();

const charts = {}, configs = {};
function draw(id, config, table = tableOf) {
  configs[id] = config;
  if (charts[id]) charts[id].destroy();
  charts[id] = new Chart(id, config);
  numbers(id, () => table(config));
}
// Chart.js copies its defaults into a chart when it is made.
function redraw() {
  readScheme();
  for (const id of Object.keys(configs)) {
    charts[id].destroy();
    charts[id] = new Chart(id, configs[id]);
  }
}
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', redraw);
window.addEventListener('beforeprint', () => {
  redraw();
  Object.values(charts).forEach(c => c.resize(680, c.height));
});
window.addEventListener('afterprint', () => {
  redraw();
  Object.values(charts).forEach(c => c.resize());
});

// The numbers behind a chart, as a table for those who read instead of look. It
// is made when it is opened: a heat map may have ten thousand cells.
function numbers(id, make) {
  const canvas = document.getElementById(id), chart = canvas.parentElement;
  let box = document.getElementById(id + '-numbers');
  if (!box) {
    let title = chart;
    while (title && title.tagName !== 'H2') title = title.previousElementSibling;
    const name = title ? title.textContent : id;
    canvas.setAttribute('role', 'img');
    canvas.setAttribute('aria-label', name + '; the numbers follow as a table');
    box = document.createElement('details');
    box.id = id + '-numbers';
    box.className = 'numbers';
    box.innerHTML = '<summary></summary><div></div>';
    box.firstChild.textContent = 'Numbers of “' + name + '”';
    const scale = chart.nextElementSibling;
    (scale && scale.classList.contains('scale') ? scale : chart).after(box);
    box.addEventListener('toggle', () => box.show());
  }
  box.show = () => {
    if (!box.open) return;
    const {heads, rows} = make();
    const table = document.createElement('table');
    const add = (cells, row) => cells.forEach((cell, i) => {
      const element = document.createElement(row && i ? 'td' : 'th');
      element.scope = row ? 'row' : 'col';
      element.textContent = cell === null || cell === undefined ? '' : cell;
      (row || table.tHead.rows[0]).append(element);
    });
    table.createTHead().insertRow();
    add(heads);
    const body = table.createTBody();
    rows.forEach(cells => add(cells, body.insertRow()));
    box.lastChild.replaceChildren(table);
  };
  box.show();
}
// Of a chart with labels, or of one whose points are {x, y}.
function tableOf({data, options}) {
  const title = options?.scales?.x?.title?.text || '';
  const lists = data.datasets.map(({data: values}) => data.labels
    ? new Map(data.labels.map((label, i) => [label, values[i]]))
    : new Map(values.map(({x, y}) => [x, y])));
  const keys = data.labels || [...new Set(lists.flatMap(list => [...list.keys()]))]
    .sort((a, b) => a - b);
  return {heads: [title, ...data.datasets.map(set => set.label || options?.scales?.y?.title?.text || '')],
          rows: keys.map(key => [key, ...lists.map(list => list.get(key))])};
}

// Cells of a heat map, drawn as one element: a point per expert would not be a
// cell of the grid at every window size. `place` maps a value to [0, 1] of the
// colours. 0 is struck through, so that nothing can't be taken for little, and
// what lies below it is grey; with `signed` both are values like others.
function heatMap(id, rows, {low, high, place, tell, signed = false}) {
  const points = rows.flatMap((row, y) => row.map((v, x) => ({x, y, v})));
  const columns = Math.max(1, ...rows.map(row => row.length));
  document.getElementById(id).parentElement.style.height =
    Math.max(160, Math.min(900, 60 + 22 * rows.length)) + 'px';
  document.getElementById(id + '-low').textContent = low;
  document.getElementById(id + '-high').textContent = high;
  const cells = {
    id: 'cells',
    beforeDatasetsDraw({ctx, scales}) {
      const width = scales.x.getPixelForValue(1) - scales.x.getPixelForValue(0);
      const height = scales.y.getPixelForValue(1) - scales.y.getPixelForValue(0);
      const gap = Math.min(width, height) > 6 ? 1 : 0;
      ctx.strokeStyle = css('--soft');
      for (const {x, y, v} of points) {
        const left = scales.x.getPixelForValue(x) - width / 2;
        const top = scales.y.getPixelForValue(y) - height / 2;
        if (v === 0 && !signed) {
          ctx.beginPath();
          ctx.moveTo(left + 1, top + height - 1 - gap);
          ctx.lineTo(left + width - 1 - gap, top + 1);
          ctx.stroke();
          continue;
        }
        ctx.fillStyle = signed ? colour(place(v), apart)
          : v > 0 ? colour(place(v)) : css('--gone');
        ctx.fillRect(left, top, width - gap, height - gap);
      }
    },
  };
  draw(id, {
    type: 'scatter',
    data: {datasets: [{data: points, pointRadius: 0, pointHitRadius: 8}]},
    options: {
      plugins: {tooltip: {callbacks: {label: c =>
        `layer ${c.raw.y}, expert ${c.raw.x}: ${tell(c.raw.v)}`}}},
      scales: {
        x: {min: -0.5, max: columns - 0.5, title: {display: true, text: 'expert'},
            grid: {display: false},
            afterBuildTicks: axis => { axis.ticks = whole(columns, innerWidth < 600 ? 12 : 32); }},
        y: {min: -0.5, max: rows.length - 0.5, reverse: true,
            title: {display: true, text: 'layer'}, grid: {display: false},
            afterBuildTicks: axis => { axis.ticks = whole(rows.length, 24); }},
      },
    },
    plugins: [cells],
  }, () => ({
    heads: ['layer', ...Array.from({length: columns}, (_, e) => 'expert ' + e)],
    rows: rows.map((row, l) => [l, ...row.map(tell)]),
  }));
}
const names = list => list.map((s, i) => [i, s.name]);

const copy = document.getElementById('copy');
if (copy && navigator.clipboard) {
  copy.hidden = false;
  copy.addEventListener('click', () => {
    navigator.clipboard.writeText(document.getElementById('command').textContent)
      .then(() => { copy.textContent = 'Copied'; });
  });
}
