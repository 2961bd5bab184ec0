// SPDX-License-Identifier: Apache-2.0
// What the charts of all reports share; beside Chart.js.
const stops = [[255, 247, 230], [246, 178, 107], [204, 76, 76], [74, 26, 79]];
function colour(t) {
  const at = Math.min(Math.max(t, 0), 1) * (stops.length - 1);
  const i = Math.min(Math.floor(at), stops.length - 2);
  const mix = stops[i].map((c, k) => c + (stops[i + 1][k] - c) * (at - i));
  return 'rgb(' + mix.map(Math.round).join(',') + ')';
}
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
const charts = {};
function draw(id, config) {
  if (charts[id]) charts[id].destroy();
  charts[id] = new Chart(id, config);
}
window.addEventListener('beforeprint', () => Object.values(charts).forEach(
    c => c.resize(680, c.height)));
window.addEventListener('afterprint', () => Object.values(charts).forEach(
    c => c.resize()));

// Cells of a heat map, drawn as one element: a point per expert would not be a
// cell of the grid at every window size. `place` maps a value to [0, 1]; 0 is
// white, and what lies below it grey.
function heatMap(id, rows, {low, high, place, tell}) {
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
      for (const {x, y, v} of points) {
        ctx.fillStyle = v > 0 ? colour(place(v)) : v < 0 ? '#c3cbd4' : '#fff';
        ctx.fillRect(scales.x.getPixelForValue(x) - width / 2,
                     scales.y.getPixelForValue(y) - height / 2,
                     width - gap, height - gap);
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
  });
}
const names = list => list.map((s, i) => [i, s.name]);
