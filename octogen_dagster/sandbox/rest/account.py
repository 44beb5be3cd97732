"""The organisation's account: what requests cost, and what is left to pay them with."""

from threading import Lock

SEARCH_PAGE_USD = 0.014
LOOKUP_USD = 0.002
TOP_UP_URL = "https://octogen.example/top-up"


class InsufficientCreditError(Exception):
    """There is not enough credit for a request.

    Attributes:
        detail: The `detail` of the 402.
    """

    def __init__(self, balance_usd: float) -> None:
        super().__init__(balance_usd)
        self.detail = {
            "code": "insufficient_credit",
            "top_up_url": TOP_UP_URL,
            "balance_usd": balance_usd,
        }


class Account:
    """Charges requests to the credit of an organisation.

    Instances are safe to use from several threads.

    Args:
        credit_usd: The credit, in US dollars; None for an account that is never empty.

    Raises:
        ValueError: `credit_usd` is negative.
    """

    def __init__(self, credit_usd: float | None = None) -> None:
        if credit_usd is not None and not credit_usd >= 0:
            raise ValueError(f"credit_usd must be 0 or more, not {credit_usd}")
        self._credit_usd = credit_usd
        self._charged_usd = 0.0
        self._lock = Lock()

    @property
    def charged_usd(self) -> float:
        """The sum of all charges, in US dollars."""
        with self._lock:
            return round(self._charged_usd, 6)

    @property
    def balance_usd(self) -> float | None:
        """The credit that is left, in US dollars; None if it is never empty."""
        with self._lock:
            return self._balance()

    def charge(self, usd: float) -> None:
        """Charge a request.

        Raises:
            InsufficientCreditError: There is not enough credit. Nothing was charged.
        """
        with self._lock:
            balance = self._balance()
            if usd and balance is not None and balance < usd:
                raise InsufficientCreditError(balance)
            self._charged_usd += usd

    def _balance(self) -> float | None:
        if self._credit_usd is None:
            return None
        return round(self._credit_usd - self._charged_usd, 6)
