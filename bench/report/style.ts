/**
 * The look of the page, light and dark.
 *
 * @module
 */

import { DARK_RULES } from "./plots/theme.ts";

/** CSS of the page; it loads nothing. */
export const STYLE: string = `
:root{color-scheme:light dark;--ink:#1f2328;--muted:#57606b;--line:#d9dee4;--page:#f4f6f8;
--panel:#fefefe;--ours:#0a66c8;--good:#16803c;--bad:#c2480c}
@media (prefers-color-scheme:dark){:root{--ink:#e6edf3;--muted:#9aa4ae;--line:#2b323b;
--page:#0b0f14;--panel:#12171e;--ours:#5aa9ff;--good:#57d068;--bad:#ff9a5c}${DARK_RULES}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:84rem;padding:1.5rem 1.25rem 4rem;background:var(--page);
color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,Helvetica,Arial,sans-serif}
h1{font-size:1.7rem;line-height:1.2;margin:0 0 .2rem}
h2{font-size:1.25rem;margin:2.4rem 0 .7rem}
h3{font-size:1.02rem;margin:1.5rem 0 .5rem}
p{margin:.4rem 0;max-width:62rem}
small,.sub,figcaption,dt{color:var(--muted)}
.notice{border-left:4px solid var(--bad);padding:.3rem .8rem;background:var(--panel)}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(10.5rem,1fr));gap:.7rem;margin:0}
.cards div,figure,.scroll{background:var(--panel);border:1px solid var(--line);border-radius:8px}
.cards div{padding:.6rem .9rem}
.cards dd{margin:0;font-size:1.25rem;font-weight:600;font-variant-numeric:tabular-nums}
figure{margin:0 0 1rem;padding:.4rem .4rem 0}
figure svg{display:block;max-width:100%;height:auto;margin:0 auto}
figcaption{padding:.5rem .7rem .7rem;font-size:.88rem;border-top:1px solid var(--line)}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.87rem}
th,td{padding:.38rem .6rem;text-align:left;vertical-align:top;border-top:1px solid var(--line)}
thead th{border-top:0;color:var(--muted);font-weight:600;white-space:nowrap}
tbody th{font-weight:600;white-space:nowrap;width:1%}
.lines td{white-space:nowrap}
.lines tbody tr:hover{background:color-mix(in srgb,var(--ours) 8%,transparent)}
.facts td{overflow-wrap:anywhere}
.number{font-variant-numeric:tabular-nums}
.lines td small{display:block}
.ours{font-weight:600;color:var(--ours)}
.kernel{font-family:ui-monospace,Menlo,Consolas,"DejaVu Sans Mono",monospace;font-size:.82rem}
.lines td.kernel{white-space:normal;min-width:11rem;overflow-wrap:anywhere}
.tag{font-size:.76rem;font-weight:400;color:var(--muted);border:1px solid var(--line);
border-radius:4px;padding:0 .3rem;white-space:nowrap}
.bar{display:inline-block;width:3.2rem;height:.6rem;border-radius:3px;background:var(--line);
overflow:hidden}
.bar i{display:block;height:100%;background:var(--ours)}
.faster{color:var(--good);font-weight:600}.slower{color:var(--bad);font-weight:600}
.nothing{color:var(--muted)}
summary{cursor:pointer}summary h2{display:inline-block}
@media print{body{max-width:none}.scroll{overflow:visible}}
`;
