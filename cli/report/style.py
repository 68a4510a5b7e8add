"""The style sheet of the report's page: light and dark, for a wide screen, a phone and paper."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark;
  --page: #f4f5f7; --card: #ffffff; --text: #1b1f24; --soft: #5c6570; --rule: #dfe3e8; --main: #2f6fd0; --bad: #c8323c;
  --warn-page: #fff5dc; --warn: #7a5200;
  --t0: #2f6fd0; --t1: #73a6ec; --t2: #1d8a7a; --t3: #66c2b3; --t4: #8a6fc9; --t5: #e07b22; --t6: #f2b24c; --t7: #b5477f; }
@media (prefers-color-scheme: dark) { :root {
  --page: #14171b; --card: #1d2126; --text: #e6e9ed; --soft: #9aa4b0; --rule: #343b44; --main: #6ea4f4; --bad: #f0727a;
  --warn-page: #3a2f14; --warn: #f3cf83;
  --t0: #6ea4f4; --t1: #3f6db3; --t2: #4cb5a5; --t3: #2b776b; --t4: #a893e0; --t5: #f0934a; --t6: #b9802b; --t7: #d673a3; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text); font: 15px/1.45 system-ui, sans-serif; }
main { max-width: 1320px; margin: 0 auto; padding: 24px 20px 40px; }
h1 { font-size: 22px; margin: 0; } h2 { font-size: 16px; margin: 0 0 10px; }
header p { margin: 4px 0 18px; color: var(--soft); overflow-wrap: anywhere; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin: 0 0 12px; }
.tile, section { background: var(--card); border: 1px solid var(--rule); border-radius: 8px; padding: 14px 16px; }
.tile { margin: 0; } .tile dt { color: var(--soft); font-size: 13px; } .tile dd { margin: 0; }
.tile dd:first-of-type { font-size: 24px; font-weight: 600; line-height: 1.25; } .tile dd + dd { color: var(--soft); font-size: 13px; }
.warn { background: var(--warn-page); color: var(--warn); border-radius: 8px; padding: 10px 16px; margin: 0 0 12px; }
section { margin: 0 0 12px; min-width: 0; }
.pair section { margin: 0; } .pair { margin: 0 0 12px; display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 12px; }
.plot { display: grid; grid-template-columns: auto 1fr; gap: 4px 8px; font-size: 12px; color: var(--soft); }
.plot .y { display: flex; flex-direction: column; justify-content: space-between; text-align: right; margin: -8px 0; }
.plot .x { grid-column: 2; display: flex; justify-content: space-between; }
svg { display: block; width: 100%; } .chart { height: 150px; } .tall .chart { height: 200px; }
.stack { height: 26px; border-radius: 4px; margin-bottom: 10px; } .tiny { height: 22px; width: 90px; } .bar .stack { margin: 0; }
.grid { stroke: var(--rule); stroke-width: 1; vector-effect: non-scaling-stroke; fill: none; }
.line { stroke: var(--main); stroke-width: 2; vector-effect: non-scaling-stroke; fill: none; }
.main { fill: var(--main); } .bad { fill: var(--bad); } .hover { fill: transparent; } .hover:hover { fill: var(--text); fill-opacity: .08; }
.t0 { fill: var(--t0); background: var(--t0); } .t1 { fill: var(--t1); background: var(--t1); }
.t2 { fill: var(--t2); background: var(--t2); } .t3 { fill: var(--t3); background: var(--t3); }
.t4 { fill: var(--t4); background: var(--t4); } .t5 { fill: var(--t5); background: var(--t5); }
.t6 { fill: var(--t6); background: var(--t6); } .t7 { fill: var(--t7); background: var(--t7); }
.dot { display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin-right: 6px; }
.key { float: right; font-weight: 400; font-size: 12px; color: var(--soft); }
.key .main { background: var(--main); } .key .bad { background: var(--bad); margin-left: 10px; }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: 14px; }
th { text-align: left; font-weight: 500; color: var(--soft); font-size: 12px; } th, td { padding: 5px 7px; border-bottom: 1px solid var(--rule); }
th:first-child, td:first-child { padding-left: 0; } th:last-child, td:last-child { padding-right: 0; } tr:last-child td { border-bottom: 0; }
td { white-space: nowrap; } td.name { max-width: 190px; overflow: hidden; text-overflow: ellipsis; }
.n { text-align: right; font-variant-numeric: tabular-nums; } .red { color: var(--bad); } .none { color: var(--soft); }
td.bar { min-width: 70px; width: 14%; } td.bar svg { height: 12px; border-radius: 3px; } code { font: 12px ui-monospace, monospace; }
footer { color: var(--soft); font-size: 13px; }
@media (max-width: 600px) { main { padding: 16px 10px 30px; } section, .tile { padding: 12px; } .chart, .tall .chart { height: 130px; }
  .tiles { grid-template-columns: 1fr 1fr; gap: 8px; } .tile dd:first-of-type { font-size: 20px; } td.name { max-width: 150px; } .opt { display: none; } }
@media print { :root { --page: #fff; --card: #fff; --text: #000; --soft: #444; --rule: #bbb; --main: #2f6fd0; --bad: #c8323c;
  --warn-page: #fff5dc; --warn: #7a5200; --t0: #2f6fd0; --t1: #73a6ec; --t2: #1d8a7a; --t3: #66c2b3; --t4: #8a6fc9; --t5: #e07b22; --t6: #f2b24c; --t7: #b5477f; }
  body { font-size: 11px; } main { max-width: none; padding: 0; } section, .tile, tr { break-inside: avoid; } .tile, section { padding: 8px 10px; }
  .wide { overflow: visible; } table { font-size: 10px; } td { white-space: normal; overflow-wrap: anywhere; } td.n { white-space: nowrap; }
  th, td { padding: 3px 5px; } td.name { min-width: 80px; } .opt { display: none; } .tiles { grid-template-columns: repeat(3, 1fr); gap: 8px; } .pair { grid-template-columns: 1fr 1fr; } code { font-size: 9px; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
"""
