"""The account: charges, refunds and the end of the credit."""

import pytest

from octogen_dagster.sandbox.rest.account import Account, InsufficientCreditError


def test_credit_is_spent_to_the_cent() -> None:
    account = Account(0.028)
    for _ in range(2):
        account.charge(0.014)
    assert (account.charged_usd, account.balance_usd) == (0.028, 0.0)
    with pytest.raises(InsufficientCreditError) as caught:
        account.charge(0.002)
    assert caught.value.detail["balance_usd"] == 0.0
    assert account.charged_usd == 0.028
    account.charge(0.0)


def test_endless_credit_is_counted() -> None:
    account = Account()
    account.charge(0.014)
    assert (account.charged_usd, account.balance_usd) == (0.014, None)


@pytest.mark.parametrize("credit", [-0.01, float("nan")])
def test_credit_is_not_negative(credit: float) -> None:
    with pytest.raises(ValueError, match="credit_usd must be 0 or more"):
        Account(credit)
