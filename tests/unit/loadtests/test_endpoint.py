import pytest

from trierarch_loadtests.errors import UsageError
from trierarch_loadtests.exchange import parse_endpoint
from trierarch_loadtests.options import hide_api_key


@pytest.mark.parametrize(
    ("url", "base_url"),
    [
        ("http://127.0.0.1:8080/v1", "http://127.0.0.1:8080/v1"),
        ("http://127.0.0.1:8080/v1/", "http://127.0.0.1:8080/v1"),
        ("http://gateway:8080", "http://gateway:8080/v1"),
        ("https://api.example.com/team/v1", "https://api.example.com:443/team/v1"),
        ("http://[::1]:8080", "http://[::1]:8080/v1"),
    ],
)
def test_addresses_as_people_write_them(url, base_url):
    assert parse_endpoint(url, None).base_url == base_url


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://x/v1", "http://", "http://x:port/v1"])
def test_what_is_no_address_is_refused(url):
    with pytest.raises(UsageError):
        parse_endpoint(url, None)


def test_the_key_is_shown_nowhere():
    assert "sk-1" not in repr(parse_endpoint("http://x", "sk-1"))
    assert hide_api_key(["locust", "--api-key", "sk-1", "-f", "x"]) == "locust --api-key ... -f x"
    assert hide_api_key(["locust", "--api-key=sk-1"]) == "locust --api-key=..."
