"""The page on pagers: prose, examples that a test reads, and the settings of each kind."""

from __future__ import annotations

import inspect
from typing import get_args

from streamad.alerting.pagers import HttpBase, PagerBase, PagerConfig
from streamad.config.section import Section

EXAMPLES = {
    "alertmanager": """
name: shop
findings: streamad.hosts.findings
pagers:
- name: alertmanager
  kind: alertmanager
  urls: [http://am-0:9093, http://am-1:9093]
  labels: {team: platform}
  read_silences: 30s
""",
    "pagerduty": """
name: shop
findings: streamad.hosts.findings
pagers:
- name: payments-oncall
  kind: pagerduty
  routing_key: ${PAGERDUTY_ROUTING_KEY}
  groups: [payments, checkout-*]
- name: everybody-else
  kind: pagerduty
  routing_key_file: /run/secrets/pagerduty
  min_severity: 2
""",
    "slack": """
name: shop
findings: streamad.hosts.findings
pagers:
- name: slack
  kind: slack
  channel: C0123456789
  token_file: /run/secrets/slack-token
  send: all
""",
    "email": """
name: shop
findings: streamad.hosts.findings
pagers:
- name: mail
  kind: email
  host: smtp.example.org
  username: streamad
  password_file: /run/secrets/smtp
  sender: streamad@example.org
  to: [oncall@example.org]
""",
    "webhook": """
name: shop
findings: streamad.hosts.findings
pagers:
- name: tickets
  kind: webhook
  url: https://tickets.example.org/streamad
  secret: ${WEBHOOK_SECRET}
""",
    "grafana": """
name: shop
findings: streamad.hosts.findings
pagers:
- name: grafana
  kind: grafana
  url: https://grafana.example.org
  token_file: /run/secrets/grafana
  dashboard: hosts-overview
""",
    "apprise": """
name: shop
findings: streamad.hosts.findings
pagers:
- name: teams
  kind: apprise
  url: https://apprise.example.org
  token: ${APPRISE_KEY}
  tags: [oncall]
""",
}

TITLES = {
    "alertmanager": "Prometheus Alertmanager",
    "pagerduty": "PagerDuty",
    "slack": "Slack",
    "email": "E-mail",
    "webhook": "Webhook",
    "grafana": "Grafana",
    "apprise": "Everything else, through Apprise",
}

NOTES = {
    "alertmanager": """
Each incident is one alert, `StreamadIncident`. It is sent to every replica at once; one that takes
it is enough, and a replica that was away gets it with the next repeat. What fires is sent again
every `resend`, what is over for five minutes more.

Firing alerts carry no `endsAt`, so Alertmanager counts its own `resolve_timeout` from the last
repeat: if this job stops for longer than that, Alertmanager takes the incidents for resolved, and
they fire again once the job is back. Raise `resolve_timeout` if your deployments take longer.

Labels identify an alert and stay as they were when it opened: `severity` (`critical`, `error`,
`warning`, `info`), `group`, `tenant`, `entity_<part>`, `incident`, and yours. The current severity
is an annotation.

**Silences made in Alertmanager** mute its own receivers only, unless `read_silences: 30s` is set.
Then they also withhold the page of all other pagers, cost no budget, and stand in the ledger:

- A silence on the label `incident`, as the button at an alert makes it, makes that incident
  `expected` until the silence ends (see [feedback](silences-and-feedback.md)). Expired before its
  time, it is withdrawn.
- Any other silence that can match our labels becomes a silence with the same matchers. It is
  withheld as `silence: Alertmanager: <comment>`. Expire it, and it ends at the next reading.

A silence that all replicas have lost is over after three readings; one that cannot be matched
exactly is left out, counted and logged. At most 50 are read in, each for 90 days at most. The
page job then needs the right to write to `streamad.<name>.feedback`. Alertmanager mutes an alert
by the labels it opened with; here every alert of an incident must match, so an incident that has
grown beyond the silence pages.""",
    "pagerduty": """
`dedup_key` is one per incident, so a repeated trigger stays one incident in PagerDuty. The first
page triggers, an acknowledgement acknowledges, the end resolves. Status 400 is final and becomes a
dead-letter record. 429, 5xx and missing answers are tried again.""",
    "slack": """
The message is updated in place: firing, acknowledged, resolved. Slack does not deduplicate: if the
process is killed between Slack's answer and the commit, the message is posted twice. A message that
somebody deleted is posted again with the next change.

The bot needs the scope `chat:write` and must be a member of the channel.""",
    "email": """
Messages of one incident form a thread. `Message-ID` stays the same at every attempt.""",
    "webhook": """
The body is `{"type": "incident.open", "id": ..., "name": ..., "data": ...}`, where `data` is the
record of the incidents topic. `type` ends with `open`, `update`, `acknowledge`, `resolve` or
`digest`. `webhook-id` is the same at every attempt: keep the ids you have seen, and each change
counts once.

Verify the signature before you use the body, and refuse old timestamps:

```python
import base64, hashlib, hmac, time


def verify(secret: str, headers: dict[str, str], body: bytes) -> bool:
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    wanted = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    fresh = abs(time.time() - int(headers["webhook-timestamp"])) < 300
    return fresh and hmac.compare_digest(headers["webhook-signature"], f"v1,{wanted}")
```""",
    "grafana": """
The annotation becomes a region once the incident is over. Without `dashboard` it belongs to the
organisation: show it with an annotation query on the tag `streamad`.""",
    "apprise": """
[Apprise API](https://github.com/caronc/apprise-api) is a small server that sends to about a hundred
kinds of receivers, among them Teams, Telegram, Matrix, ntfy and SMS. It holds their addresses and
secrets under a key.""",
}


def pagers_page() -> str:
    """Return the page."""
    kinds = {section.model_fields["kind"].annotation: section for section in _kinds()}
    by_name = {get_args(kind)[0]: section for kind, section in kinds.items()}
    rooms = "\n\n".join(_room(name, by_name[name]) for name in EXAMPLES)
    return f"""# Pagers

Pagers are settings of the alerting file, under `pagers`. The alert stage writes incidents to a
topic; a job of its own sends them:

```sh
streamad run --alerting alerting.yaml --role page --health-port 8080
```

Each pager has its own consumer group (`streamad.<name>.page.<pager>`), queue, back-off and
dead-letter records. A pager that is down delays neither detection nor another pager. Start a
second process for a spare; give each its own `STREAMAD_MEMBER`.

{rooms}

## Settings of all pagers

{_table(PagerBase)}

Beside them, for all but e-mail:

{_table(HttpBase)}

## What is promised

- **Nothing is lost.** Progress is committed after the receiver has taken a page. Kill the process
  at any step, stop the receiver for hours, answer 429, 500 or garbage, or hang: the page is sent
  once the receiver is back. After `give_up` without an answer it becomes a dead-letter record, in
  `<incidents topic>.dlq`, with the reason `page_given_up`; the incident is tried again with its
  next record. `page_refused` stands for a receiver that refuses the page itself. Such a record has
  the page's key in the header `streamad.page.key`. `streamad dlq replay alerting.yaml` asks the
  pager for it again: it sends the incident as it is by then, under its key, and opens none that is
  over.
- **Nothing is repeated** where the receiver deduplicates: PagerDuty, Alertmanager, and webhooks by
  `webhook-id`. Elsewhere the one page that was under way may come twice after a crash.
- **Order is kept per incident.** A change is committed before the next one is sent. An update that
  a newer record has overtaken is left out; an opening and an end never are, even if the incident
  is over by the time its pager is back.
- **Old incidents stay quiet.** A new pager gets nothing older than `max_age`. A job that was
  stopped sends what is still open, and leaves out what is over and older than `max_age`.
- **Clocks hardly matter.** The clock of the machine is read only when a partition is assigned, so a
  jump of a running job changes nothing. A job that starts with a clock ahead by more than `max_age`
  takes itself for one that was stopped for as long. Receivers of webhooks refuse a wrong time until
  the clock is right.

Wrong credentials (401, 403), unknown addresses (404) and channels that the bot has not joined are
tried again every 30 s: repair them, and nothing is lost. Secrets in files are read at each request,
so a renewed one is used at once.

## Security

- URLs are `https://` or `http://`, without credentials. Secrets go over HTTPS only, unless the
  receiver is on this machine or `allow_http: true` is set.
- `STREAMAD_PAGER_HOSTS=events.pagerduty.com,*.example.org` narrows the hosts that may be reached.
  Redirects are not followed. Link-local addresses (a cloud's metadata service) are refused.
- Certificates are verified, answers are read up to 64 KiB, and `timeout` bounds a whole request,
  however slowly its answer comes.
- Text of the input is escaped for each receiver. Links with credentials or secrets are left out.
- Secrets are shown by neither logs, errors nor `streamad validate`.

## Watch it

`streamad_page_sent_total` counts attempts by pager and result, `streamad_page_oldest_seconds` shows
how long the oldest incident has been waiting for its pager. Alert on both, by another way than the
pager they are about:

```
max by (pager) (streamad_page_oldest_seconds) > 300
increase(streamad_page_sent_total{{result=~"refused|given_up"}}[1h]) > 0
```
"""


def _kinds() -> list[type[Section]]:
    union, _ = get_args(PagerConfig)
    return list(get_args(union))


def _room(name: str, section: type[Section]) -> str:
    about = (inspect.getdoc(section) or "").strip()
    example = EXAMPLES[name].strip()
    return (
        f"## {TITLES[name]}\n\n{about}\n\n```yaml\n{example}\n```\n\n{NOTES[name].strip()}\n\n"
        f"{_table(section)}"
    )


def _table(section: type[Section]) -> str:
    """Return the settings that a section declares itself."""
    from tests.docs import make

    told, types = make.described(section), make._types(section)
    lines = ["| setting | type | default | what |", "|---|---|---|---|"]
    for name in told:
        if name == "kind":
            continue
        field = section.model_fields[name]
        default = make._default(field, is_duration="Duration" in types[name])
        kind = _KINDS.get(name) or make._kind(_bare(types[name]), [])
        lines.append(f"| `{name}` | {kind} | {default} | {make._cell(told[name])} |")
    return "\n".join(lines)


def _bare(written: str) -> str:
    return written.replace("SecretStr", "str").replace("Url", "str")


_KINDS = {"to": "list of addresses", "tags": "list of text", "urls": "list of URLs", "url": "URL"}
