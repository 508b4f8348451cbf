"""Every kind of pager against a server that holds its payloads against the published limits."""

from __future__ import annotations

import json
import shutil
import socketserver
import ssl
import subprocess
import threading
import time
from dataclasses import replace

import pytest

from connectors.pagers import make_pager
from connectors.pagers.email import message_of
from connectors.pagers.slack import escaped
from streamad.alerting.config import AlertingConfig
from streamad.paging.changes import Told, page_of, told_after
from streamad.testing.pager_server import ROUTING_KEY, SECRET, TOKEN, PagerServer
from tests.unit.pagers.made import DIGEST, INCIDENT, MEMBER, over, step

CHANGES = ["open", "update", "acknowledge", "resolve"]
HTTP = ["pagerduty", "slack", "webhook", "grafana", "apprise"]
EVIL = '</script><!channel>"}]\n\x1b[2J\u202e<b>*x*|`&\r\nBcc: all@example.org\U0001f600 `rm`'


def settings(kind, base, **more):
    given = {
        "pagerduty": {"url": f"{base}/v2/enqueue", "routing_key": ROUTING_KEY},
        "slack": {"url": f"{base}/api", "token": TOKEN, "channel": "C012"},
        "webhook": {"url": f"{base}/hook", "secret": SECRET},
        "grafana": {"url": base, "token": TOKEN},
        "apprise": {"url": base, "token": "a-key"},
    }[kind]
    tree = {"name": "p", "kind": kind, "timeout": "500ms", **given, **more}
    config = AlertingConfig.model_validate({"name": "shop", "findings": "f", "pagers": [tree]})
    return config.pagers[0]


def pager(kind, server, **more):
    return make_pager(settings(kind, server.url, **more))


@pytest.fixture
def server():
    with PagerServer() as one:
        yield one


def life(kind, server, *incidents):
    """Send the life of an incident as the page job does."""
    made, told = pager(kind, server), None
    for change, incident in zip(CHANGES, incidents, strict=True):
        if change == "update" and not made.updates:
            continue
        page = page_of(incident, change, told)
        outcome = made.send(page)
        assert outcome.result == "ok", outcome
        told = told_after(page, told, outcome)
    return told


LIFE = (INCIDENT, step(INCIDENT, severity=3.1), step(step(INCIDENT), acknowledged="ann"))
LIFE = (*LIFE, over(LIFE[2]))


@pytest.mark.parametrize("kind", HTTP)
def test_a_life_fits_the_published_limits(kind, server):
    life(kind, server, *LIFE)
    assert server.problems == []
    assert server.attempts >= 2


@pytest.mark.parametrize("kind", HTTP)
def test_text_of_the_input_stays_text(kind, server):
    """The longest and nastiest texts neither break a limit nor mean anything to the receiver."""
    long = EVIL * 400
    bad = replace(
        INCIDENT, group=long, tenant=EVIL, summary=long, entity={EVIL: long},
        members=tuple(replace(MEMBER, alert=f"a{i}", key=long, summary=long) for i in range(50)),
        n_members=300, links={EVIL: f"https://x.example/?q={EVIL}", "js": "javascript:alert(1)",
                              "login": "https://u:pw@x.example/", "t": "https://x.example/?token=s"},
    )  # fmt: skip
    life(kind, server, bad, step(bad), step(step(bad), acknowledged=EVIL), over(bad))
    assert server.problems == []
    for one in server.taken:
        text = json.dumps(one.body, ensure_ascii=False)
        assert "pw@" not in text
        assert "javascript:" not in text
        assert "token=s" not in text
        if kind == "slack":
            assert "<!channel>" not in text
        if kind == "grafana":
            assert "<b>" not in text
            assert "</script>" not in text
        if kind != "webhook":  # it carries the record as it is, as JSON
            assert "\u202e" not in text
            assert "\x1b" not in text


def test_slack_shows_text_as_it_is():
    assert "<" not in escaped("<https://evil|click>").replace("&lt;", "")
    assert "*b*" not in escaped("*b*")


@pytest.mark.parametrize("mode", ["429", "500", "garbage", "hang", "drip", "no_answer"])
@pytest.mark.parametrize("kind", HTTP)
def test_what_may_pass_is_tried_again_within_the_time_limit(kind, mode, server):
    server.fail(mode, times=1, retry_after="7" if mode == "429" else "")
    began = time.monotonic()
    made = pager(kind, server)
    outcome = made.send(page_of(INCIDENT, "open"))
    assert time.monotonic() - began < 2
    assert outcome.result == "retry"
    assert outcome.detail
    assert outcome.wait_s == (7.0 if mode == "429" else 0.0)
    server.recover()
    assert made.send(page_of(INCIDENT, "open")).result == "ok"
    assert server.problems == []


@pytest.mark.parametrize("kind", HTTP)
def test_redirects_are_not_followed(kind, server):
    server.fail("redirect", times=1)
    outcome = pager(kind, server).send(page_of(INCIDENT, "open"))
    assert outcome.result == "retry" or kind == "pagerduty"
    assert "redirect" in outcome.detail
    assert server.attempts == 1


def test_pagerduty_never_repeats_what_was_refused(server):
    made = pager("pagerduty", server)
    for mode in ("400", "401"):
        server.fail(mode, times=1)
        assert made.send(page_of(INCIDENT, "open")).result == "never"


@pytest.mark.parametrize("kind", ["pagerduty", "slack", "grafana", "apprise"])
def test_a_proxys_page_is_no_success(kind, server):
    server.fail("html", times=1)
    assert pager(kind, server).send(page_of(INCIDENT, "open")).result == "retry"


def test_slack_answers_200_to_what_it_refuses(server):
    made = pager("slack", server, token="xoxb-wrong")  # noqa: S106 - of nobody
    outcome = made.send(page_of(INCIDENT, "open"))
    assert outcome.result == "retry"
    assert outcome.wait_s > 0
    assert "invalid_auth" in outcome.detail
    server.fail("html", times=1)
    assert made.send(page_of(INCIDENT, "open")).result == "retry"
    # The message was deleted: the change is posted as a new one.
    outcome = pager("slack", server).send(
        page_of(INCIDENT, "update", Told(incident="i", sequence=0, state="open", reference="1.5"))
    )
    assert (outcome.result, outcome.reference) == ("retry", "")


def test_slack_updates_one_message(server):
    told = life("slack", server, *LIFE)
    assert list(server.messages) == [told.reference]
    headers = [one["blocks"][0]["text"]["text"] for one in server.messages[told.reference]]
    assert [header.split()[1] for header in headers] == [
        "FIRING:", "FIRING:", "ACKNOWLEDGED:", "RESOLVED:",
    ]  # fmt: skip


def test_grafana_ends_the_region_it_began(server):
    life("grafana", server, *LIFE)
    (annotation,) = server.annotations.values()
    assert annotation["time"] == INCIDENT.began_ms
    assert annotation["timeEnd"] == LIFE[3].until_ms


def test_pagerduty_is_one_incident_with_one_key(server):
    life("pagerduty", server, *LIFE)
    assert server.pagerduty.pages == 1
    assert sum(server.pagerduty.resolved.values()) == 1
    assert [event["event_action"] for event in server.pagerduty.events] == [
        "trigger", "acknowledge", "resolve",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["slack", "webhook", "apprise"])
def test_digests_are_sent(kind, server):
    made = pager(kind, server)
    assert made.send(page_of(DIGEST, "digest")).result == "ok"
    assert server.problems == []


@pytest.mark.parametrize("kind", HTTP)
def test_a_secret_is_shown_nowhere(kind, server, caplog, tmp_path):
    """Not where a receiver repeats it, not in settings that are shown, not in an error."""
    secret = "hunter2hunter2hunter2hunter2hunt"  # noqa: S105 - of nobody
    file = tmp_path / "secret"
    name = {"pagerduty": "routing_key", "webhook": "secret"}.get(kind, "token")
    config = settings(kind, server.url, **{name: secret})
    assert secret not in repr(config)
    assert secret not in config.model_dump_json()
    file.write_text(f"{secret}\n")
    held = settings(kind, server.url, **{name: None, f"{name}_file": str(file)})
    server.fail("500", times=2)
    for one in (config, held):
        made = make_pager(one)
        page = page_of(replace(INCIDENT, summary=f"repeats {secret}"), "open")
        outcome = made.send(page)
        assert outcome.result == "retry"
        assert secret not in outcome.detail
        assert secret not in repr(made._adapter.requests(page, now_ms=0))
    file.unlink()
    outcome = make_pager(held).send(page_of(INCIDENT, "open"))
    assert outcome.result == "retry"
    assert f"{name}_file cannot be read" in outcome.detail
    assert secret not in caplog.text


def test_a_secret_that_an_answer_repeats_is_hidden(server):
    made = pager("pagerduty", server)
    assert made._secrets.hide(f"bad key {ROUTING_KEY}") == "bad key ***"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://169.254.169.254/latest", "link-local"),
        ("http://[::ffff:169.254.169.254]/", "link-local"),
        ("http://0.0.0.0:1/", "unspecified"),
    ],
)
def test_a_metadata_service_gets_nothing(url, why):
    made = make_pager(settings("webhook", "http://x", url=url))
    outcome = made.send(page_of(INCIDENT, "open"))
    assert outcome.result == "retry"
    assert why in outcome.detail


def test_hosts_can_be_narrowed(server):
    made = make_pager(settings("webhook", server.url), hosts=["*.example.org"])
    assert "STREAMAD_PAGER_HOSTS" in made.send(page_of(INCIDENT, "open")).detail
    made = make_pager(settings("webhook", server.url), hosts=["127.*"])
    assert made.send(page_of(INCIDENT, "open")).result == "ok"


@pytest.mark.parametrize(
    ("pagers", "why"),
    [
        ([{"name": "p", "kind": "slack", "channel": "C"}], "token"),
        ([{"name": "p", "kind": "pigeon"}], "kind"),
        ([{"name": "p", "kind": "webhook", "secret": "x" * 16, "url": "ftp://x"}], "https://"),
        ([{"name": "p", "kind": "webhook", "secret": "x" * 16, "url": "https://u:p@x"}], "user"),
        ([{"name": "p", "kind": "grafana", "token": "t", "url": "http://g:3000"}], "allow_http"),
        ([{"name": "p", "kind": "alertmanager", "urls": []}], "urls"),
        ([{"name": "p", "kind": "alertmanager", "urls": ["http://a"]}] * 2, "more than once"),
    ],
)
def test_mistakes_in_settings_are_named(pagers, why):
    with pytest.raises(ValueError, match=why):
        AlertingConfig.model_validate({"name": "shop", "findings": "f", "pagers": pagers})


def test_mail_is_one_thread_and_no_header_of_the_input_gets_in():
    tree = {"name": "p", "kind": "email", "host": "mx", "sender": "a@x.org", "to": ["b@x.org"]}
    config = AlertingConfig.model_validate({"name": "s", "findings": "f", "pagers": [tree]})
    first = message_of(page_of(replace(INCIDENT, summary=EVIL), "open"), config.pagers[0])
    assert first["Bcc"] is None
    told = Told(incident="i", sequence=0, state="open", reference=first["Message-ID"])
    last = message_of(page_of(over(INCIDENT), "resolve", told), config.pagers[0])
    assert last["In-Reply-To"] == first["Message-ID"]
    assert last["Subject"].startswith("RESOLVED: ")
    assert "\x1b" not in first.get_content()


class _Smtp(socketserver.StreamRequestHandler):
    """As much of a mail server as it takes to accept, or to refuse."""

    def handle(self):
        self.wfile.write(b"220 mx\r\n")
        while line := self.rfile.readline():
            verb = line[:4].upper()
            if verb == b"DATA":
                self.wfile.write(b"354 go ahead\r\n")
                body = b""
                while (line := self.rfile.readline()) != b".\r\n":
                    body += line
                self.server.mails.append(body)
                self.wfile.write(b"250 ok\r\n")
            elif verb == b"RCPT" and self.server.refuse:
                self.wfile.write(self.server.refuse + b" no\r\n")
            else:
                self.wfile.write(b"221 bye\r\n" if verb == b"QUIT" else b"250 ok\r\n")


@pytest.mark.parametrize(("refuse", "result"), [(b"", "ok"), (b"550", "never"), (b"451", "retry")])
def test_mail_is_delivered_or_tried_again(refuse, result):
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Smtp) as mx:
        mx.mails, mx.refuse, mx.daemon_threads = [], refuse, True
        thread = threading.Thread(target=mx.serve_forever, args=(0.05,))
        thread.start()
        tree = {
            "name": "p", "kind": "email", "host": "127.0.0.1", "port": mx.server_address[1],
            "sender": "a@x.org", "to": ["b@x.org"], "tls": False,
        }  # fmt: skip
        config = AlertingConfig.model_validate({"name": "s", "findings": "f", "pagers": [tree]})
        outcome = make_pager(config.pagers[0]).send(page_of(INCIDENT, "open"))
        mx.shutdown()
        thread.join()
    assert outcome.result == result
    assert len(mx.mails) == (result == "ok")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A certificate of its own for 127.0.0.1, and one of the same key for another host."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl to make a certificate")
    folder = tmp_path_factory.mktemp("tls")
    for name, host in (("ours", "IP:127.0.0.1"), ("other", "DNS:other.example.org")):
        subprocess.run(
            [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-nodes", "-days", "2", "-subj", f"/CN={name}", "-addext", f"subjectAltName={host}",
             "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem"],
            check=True, capture_output=True,
        )  # fmt: skip
    return folder


@pytest.mark.parametrize(
    ("served", "trusted", "works"),
    [("ours", "ours", True), ("ours", None, False), ("other", "other", False)],
)
def test_certificates_and_their_hosts_are_verified(certificates, served, trusted, works):
    with PagerServer() as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates / f"{served}.pem", certificates / f"{served}.key")
        plain = server._server.socket
        server._server.socket = context.wrap_socket(plain, server_side=True)
        server._server.handle_error = lambda *request: None  # a client that hangs up
        ca = {"ca_file": str(certificates / f"{trusted}.pem")} if trusted else {}
        url = server.url.replace("http:", "https:") + "/hook"
        outcome = make_pager(settings("webhook", "", url=url, **ca)).send(page_of(INCIDENT, "open"))
        assert (outcome.result == "ok") == works, outcome
        if not works:
            assert "certificate is not trusted" in outcome.detail
            assert server.attempts == 0


def test_a_certificate_file_that_is_missing_is_named():
    made = make_pager(settings("webhook", "", url="https://127.0.0.1:1/", ca_file="/nowhere"))
    assert made.send(page_of(INCIDENT, "open")).result == "retry"


def test_a_renewed_certificate_is_used_at_once_and_half_of_one_never(certificates, tmp_path):
    trusted = tmp_path / "ca.pem"
    with PagerServer() as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates / "ours.pem", certificates / "ours.key")
        plain = server._server.socket
        server._server.socket = context.wrap_socket(plain, server_side=True)
        server._server.handle_error = lambda *request: None
        url = server.url.replace("http:", "https:") + "/hook"
        trusted.write_bytes((certificates / "other.pem").read_bytes())
        pager = make_pager(settings("webhook", "", url=url, ca_file=str(trusted)))
        sent = []
        for content in ("other", "ours", "half", None):
            if content is None:
                trusted.unlink()
            elif content == "half":
                trusted.write_bytes((certificates / "ours.pem").read_bytes()[:200])
            else:
                trusted.write_bytes((certificates / f"{content}.pem").read_bytes())
            sent.append(pager.send(page_of(INCIDENT, "open")).result)
        assert sent == ["retry", "ok", "ok", "ok"]
