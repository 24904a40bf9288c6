"""A Redis that Sentinels name; what its URL says, and what is shown of it."""

from carpark.records.connection import address, connect
from carpark.settings.sentinels import Sentinels, is_sentinel_url, sentinels_of
from carpark.settings.values import MASK, mask_url

FULL = "rediss+sentinel://me:p%40ss%2C@a:1,[::1]:2,c/stays/3?sentinel_user=s&sentinel_password=q%26"


def test_a_url_says_all_that_is_needed() -> None:
    hosts = (("a", 1), ("::1", 2), ("c", 26379))
    assert sentinels_of(FULL) == Sentinels(hosts, "stays", 3, "me", "p@ss,", "s", "q&", tls=True)


def test_a_plus_in_a_password_is_a_plus_wherever_it_stands() -> None:
    found = sentinels_of("redis+sentinel://:p+w@a/stays?sentinel_password=p+w&sentinel_user=s%20u")
    assert (found.password, found.sentinel_password, found.sentinel_user) == ("p+w", "p+w", "s u")


def test_what_a_url_leaves_out_has_a_default() -> None:
    found = sentinels_of("redis+sentinel://a/my-stays.1")
    assert found == Sentinels((("a", 26379),), "my-stays.1", 0, None, None, None, None, tls=False)


def test_only_its_scheme_makes_it_one() -> None:
    assert is_sentinel_url("REDIS+SENTINEL://h/stays")
    assert not any(
        map(is_sentinel_url, ["redis://h/0", "redis://sentinel:1", "memory://", "redis+sentinel+x://h/stays"])
    )


def test_passwords_are_masked_and_hosts_are_not() -> None:
    assert mask_url(FULL) == f"rediss+sentinel://me:{MASK}@a:1,[::1]:2,c/stays/3?{MASK}"
    assert mask_url("redis+sentinel://a:1,b:2/stays/0") == "redis+sentinel://a:1,b:2/stays/0"


def test_the_client_asks_each_sentinel_with_its_own_password_and_redis_with_redis_s() -> None:
    client = connect(FULL.replace("rediss", "redis"), database=1)
    pool = client.connection_pool
    kwargs = pool.connection_kwargs
    assert (kwargs["db"], kwargs["username"], kwargs["password"]) == (1, "me", "p@ss,")
    sentinels = [each.connection_pool.connection_kwargs for each in pool.sentinel_manager.sentinels]  # type: ignore[attr-defined]
    assert [(each["host"], each["port"], each["password"]) for each in sentinels] == [
        ("a", 1, "q&"),
        ("::1", 2, "q&"),
        ("c", 26379, "q&"),
    ]
    assert address(client) == "stays (by Sentinel)"
    client.close()
