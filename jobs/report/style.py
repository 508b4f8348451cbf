"""How the page looks: one style sheet, light and dark, wide and narrow."""

STYLE = """
:root{color-scheme:light dark;--bg:#f7f8fa;--card:#fff;--ink:#1c2330;--dim:#5b6575;--rule:#dfe3ea;
--soft:#eef1f5;--page:#2f6fc4;--held:#b9c2cf;--over:#d07a1f;--good:#237a4b;--bad:#c23b3b;
--link:#1f5fb0}
@media (prefers-color-scheme:dark){:root{--bg:#11151c;--card:#191f29;--ink:#e6e9ef;--dim:#9aa5b6;
--rule:#2c3543;--soft:#222a36;--page:#5b9bea;--held:#56627a;--over:#e5a04f;--good:#5fc08a;
--bad:#ef7b7b;--link:#84b6f4}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:1080px;margin:0 auto;padding:20px 16px 60px}
h1{font-size:24px;line-height:1.25;margin:0 0 4px;overflow-wrap:anywhere}
h2{font-size:17px;margin:0 0 4px} p{margin:4px 0 10px}
.dim{color:var(--dim)} .small{font-size:13px} .good{color:var(--good)} .bad{color:var(--bad)}
section{background:var(--card);border:1px solid var(--rule);border-radius:10px;
padding:16px 18px;margin:14px 0}
.verdict{font-size:17px;border-left:4px solid var(--page)}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));
gap:10px;margin:14px 0 0}
.facts div{background:var(--soft);border-radius:8px;padding:8px 12px}
.facts b{display:block;font-size:20px;line-height:1.25;overflow-wrap:anywhere}
.wide{overflow-x:auto;margin:0 -18px;padding:0 18px}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:5px 8px;border-bottom:1px solid var(--rule);white-space:nowrap}
th{font-weight:600;color:var(--dim);font-size:13px}
th:first-child,td:first-child{text-align:left} tr:last-child td{border-bottom:0}
td.text,th.text{text-align:left;white-space:normal;overflow-wrap:anywhere;min-width:110px}
tr.chosen td{background:var(--soft);font-weight:600}
td.bar{width:24%;min-width:110px} td.strip{width:70%;min-width:160px}
th.bar,th.strip,td.bar{text-align:left}
.bar svg,.strip svg{display:block;width:100%;height:16px}
.strip svg{height:18px;background:var(--soft);border-radius:3px}
.f-page{fill:var(--page)} .f-held{fill:var(--held)} .f-over{fill:var(--over)}
.f-mark{fill:var(--ink)}
.ends{display:flex;justify-content:space-between}
.key{display:inline-block;width:10px;height:10px;border-radius:2px;margin:0 5px 0 12px}
.key:first-child{margin-left:0} .k-page{background:var(--page)} .k-held{background:var(--held)}
.k-over{background:var(--over)} .k-mark{background:var(--ink);width:3px}
details{border-top:1px solid var(--rule)} details:first-of-type{border-top:0}
summary{cursor:pointer;padding:10px 0 10px 18px;position:relative;
display:grid;gap:4px 14px;align-items:center;
grid-template-columns:minmax(0,1fr) auto;list-style:none}
summary::-webkit-details-marker{display:none}
summary::before{content:"";position:absolute;left:3px;top:16px;border:5px solid transparent;
border-left-color:var(--dim);border-right:0} details[open]>summary::before{transform:rotate(90deg)}
summary .line{overflow-wrap:anywhere} summary:focus-visible{outline:2px solid var(--page)}
.spark{max-width:100%;height:auto;background:var(--soft);border-radius:5px;display:block}
.tag{display:inline-block;border-radius:9px;padding:0 8px;font-size:12px;margin-right:6px;
background:var(--soft);color:var(--dim);white-space:nowrap}
.tag.page{background:var(--page);color:var(--card)} .tag.over{background:var(--over);
color:var(--card)} .tag.good{color:var(--good)} .tag.bad{color:var(--bad)}
.inside{padding:0 0 12px 18px;margin:0;display:grid;gap:6px 18px;
grid-template-columns:max-content minmax(0,1fr)}
.inside dt{color:var(--dim)} .inside dd{margin:0;overflow-wrap:anywhere}
a{color:var(--link)} code{background:var(--soft);border-radius:4px;padding:1px 5px;font-size:13px;
overflow-wrap:anywhere}
@media (max-width:640px){main{padding:14px 10px 40px} h1{font-size:20px}
section{padding:12px 12px} .wide{margin:0 -12px;padding:0 12px} summary{grid-template-columns:1fr}
.inside{grid-template-columns:minmax(0,1fr)} .inside dt{margin-top:6px} th,td{padding:5px 6px}}
@media print{body{background:#fff} section{break-inside:avoid}}
"""
