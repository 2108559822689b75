// Small charts in SVG. Each has a summary in words.

import { html } from "./ui.js";

const WIDTH = 600;
const HEIGHT = 120;

/** Bars of equal width. `summary` says what they show; `labels` are the texts of the bars. */
export function Bars({ values, labels, summary }) {
    const highest = Math.max(1, ...values);
    const width = WIDTH / values.length;
    return html`<svg class="chart" role="img" aria-label=${summary} viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none">
        <line class="axis" x1="0" x2=${WIDTH} y1=${HEIGHT - 0.5} y2=${HEIGHT - 0.5} />
        ${values.map((value, index) => {
            const height = value === 0 ? 0 : Math.max(2, (value / highest) * (HEIGHT - 4));
            return html`<rect class="bar" x=${index * width + width * 0.1} width=${width * 0.8} y=${HEIGHT - height} height=${height}><title>${labels[index]}</title></rect>`;
        })}
    </svg>`;
}

/** Lines over the same x. `series` are `{name, className, points: [[x, y], …]}`. */
export function Lines({ series, summary }) {
    const all = series.flatMap(({ points }) => points);
    const [left, right] = [Math.min(...all.map(([x]) => x)), Math.max(...all.map(([x]) => x))];
    const [low, high] = [Math.min(...all.map(([, y]) => y)), Math.max(...all.map(([, y]) => y))];
    const place = ([x, y]) => {
        const along = right === left ? WIDTH : ((x - left) / (right - left)) * WIDTH;
        const up = high === low ? 0.5 : (y - low) / (high - low);
        return `${along.toFixed(1)},${(HEIGHT - 4 - up * (HEIGHT - 8)).toFixed(1)}`;
    };
    return html`<svg class="chart" role="img" aria-label=${summary} viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none">
        <line class="axis" x1="0" x2=${WIDTH} y1=${HEIGHT - 0.5} y2=${HEIGHT - 0.5} />
        ${series.map(({ className, points }) => html`<polyline class=${`line ${className}`} points=${points.map(place).join(" ")} />`)}
    </svg>`;
}
