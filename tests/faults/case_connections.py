"""Faults of connections, and of the ways that lead to a server."""

from __future__ import annotations

from llm_manager import (
    InvalidResponseError,
    ProviderConnectionError,
    RequestTimeoutError,
    StreamInterruptedError,
)

from . import scripts
from .fault import Fault, Place, Seen, failed, fails, lost, only_this_answer
from .server import Talk

WHOLE = "Hello world"
_RESET = fails(ProviderConnectionError, "reset", **lost("reset"))
_TLS = fails(ProviderConnectionError, "tls", attempts=1, **lost("tls"))
_PROXY = "http://127.0.0.1:{port}"

CONNECTIONS = (
    Fault(
        name="refused",
        what="nobody listens at the port",
        place=Place(address="http://127.0.0.1:{free}"),
        seen=fails(ProviderConnectionError, "refused", **lost("refused")),
        says="is the server running",
    ),
    Fault(
        name="unresolvable",
        what="the name of the server cannot be resolved",
        place=Place(address="http://nowhere.invalid"),
        seen=fails(ProviderConnectionError, "dns", **lost("dns")),
        says="nowhere.invalid",
    ),
    Fault(
        name="hang",
        what="the request is taken, and nothing comes",
        script=scripts.hang,
        clock="first_token_s",
        seen=fails(
            RequestTimeoutError,
            "first_token_timeout",
            attempts=1,
            **only_this_answer(first="reconnecting (timeout)"),
        ),
    ),
    Fault(
        name="closed_without_an_answer",
        what="closed without an answer",
        script=scripts.close_without_a_word,
        everywhere=True,
        seen=_RESET,
    ),
    Fault(
        name="reset_before_headers",
        what="reset before the headers",
        script=scripts.reset_before_headers,
        everywhere=True,
        seen=_RESET,
    ),
    Fault(
        name="reset_during_headers",
        what="reset in the middle of the headers",
        script=scripts.reset_during_headers,
        everywhere=True,
        seen=_RESET,
    ),
    Fault(
        name="reset_after_headers",
        what="reset after the headers",
        script=scripts.reset_after_headers,
        seen=fails(StreamInterruptedError, **only_this_answer(first="reconnecting (reset)")),
    ),
    Fault(
        name="slow_headers",
        what="headers byte by byte, one each 50 ms",
        script=scripts.slow_headers,
        clock="first_token_s",
        seen=fails(
            RequestTimeoutError,
            "first_token_timeout",
            attempts=1,
            **only_this_answer(first="reconnecting (timeout)"),
        ),
    ),
    Fault(
        name="endless_headers",
        what="headers without an end",
        script=scripts.endless_headers,
        says="do not end",
        seen=fails(InvalidResponseError, **only_this_answer(first="reconnecting (server_error)")),
    ),
    Fault(
        name="no_http",
        what="something else than HTTP",
        script=scripts.no_http,
        everywhere=True,
        seen=fails(InvalidResponseError, **lost("server_error")),
        says="does not answer in HTTP",
    ),
)

KEPT_CONNECTIONS = (
    Fault(
        name="closed_while_idle",
        what="a kept connection is closed while it is not used",
        while_idle=Talk.close,
        needs_history=True,
        seen=Seen(text=WHOLE, worked="connected (recovered)"),
    ),
    Fault(
        name="reset_while_idle",
        what="a kept connection is reset while it is not used",
        while_idle=Talk.reset,
        needs_history=True,
        seen=Seen(text=WHOLE, worked="connected (recovered)"),
    ),
    Fault(
        name="dies_under_the_next_request",
        what="a kept connection is reset when the next request arrives",
        script=scripts.dies_under_the_next_request,
        everywhere=True,
        needs_history=True,
        seen=Seen(text=WHOLE, worked="connected (recovered)"),
    ),
)

CERTIFICATES = (
    Fault(
        name="tls_fine",
        what="a certificate of an authority that `ca_file` names",
        place=Place(certificate="good"),
        seen=Seen(text=WHOLE, connecting="connected (recovered)", first="connected (recovered)"),
    ),
    Fault(
        name="tls_wrong_name",
        what="a certificate for another name",
        place=Place(certificate="wrong_name"),
        seen=_TLS,
        says="(it is issued by 'Inspection CA trusted' of 'Example Networks')",
    ),
    Fault(
        name="tls_expired",
        what="a certificate that has expired",
        place=Place(certificate="expired"),
        seen=_TLS,
        says="check the clock",
    ),
    Fault(
        name="tls_unknown_issuer",
        what="a certificate of an unknown issuer",
        place=Place(certificate="unknown_issuer"),
        seen=_TLS,
        says="(it is issued by 'Inspection CA stranger' of 'Example Networks')",
    ),
    Fault(
        name="http_at_https",
        what="plain HTTP at an https: address",
        place=Place(address="https://127.0.0.1:{port}"),
        seen=fails(ProviderConnectionError, "tls", **lost("tls")),
        says="does this server speak https",
    ),
    Fault(
        name="silent_handshake",
        what="TLS is never answered",
        script=scripts.hang,
        place=Place(address="https://127.0.0.1:{port}"),
        clock="connect_s",
        seen=fails(RequestTimeoutError, "connect_timeout", **lost("timeout")),
    ),
)

PROXIES = (
    Fault(
        name="proxy_password",
        what="the proxy wants a password",
        script=scripts.says(407),
        everywhere=True,
        place=Place(address="http://llm.test", proxy=_PROXY),
        seen=fails(ProviderConnectionError, "proxy", 407, attempts=1, **failed("invalid_config")),
        says="password",
    ),
    Fault(
        name="proxy_password_tunnel",
        what="the proxy wants a password before it connects us",
        script=scripts.says(407),
        everywhere=True,
        place=Place(address="https://llm.test", proxy=_PROXY),
        seen=fails(ProviderConnectionError, "proxy", 407, attempts=1, **failed("invalid_config")),
        says="password",
    ),
    Fault(
        name="dead_proxy",
        what="nobody listens at the proxy's port",
        place=Place(address="https://llm.test", proxy="http://127.0.0.1:{free}"),
        seen=fails(ProviderConnectionError, "proxy", **lost("proxy")),
        says="check the proxy settings",
    ),
)
