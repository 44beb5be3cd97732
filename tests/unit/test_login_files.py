"""The files of a login."""

import pickle

import pytest
from pydantic import SecretStr

from octogen_dagster.control_plane.login_files import SecretFile


def test_a_file_with_its_first_word_is_not_pickled() -> None:
    with pytest.raises(TypeError, match="refresh token file /x is not pickled"):
        pickle.dumps(SecretFile("/x", "refresh token", SecretStr("secret")))
