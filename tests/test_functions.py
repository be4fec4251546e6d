"""What `package.module:function` names: one rule for methods, backbones, augmentations and data."""

import pytest

from tf_mmloss.backbones import function as backbone_function
from tf_mmloss.data import DataError, open_source
from tf_mmloss.functions import FunctionError, function_of, is_function
from tf_mmloss.train.config import Config, code_named


# The second is an identifier of Python that a regular expression of letters does not find.
@pytest.mark.parametrize("name", ["package.module:function", "\u2118:f", "_a1:_b2"])
def test_a_function(name):
    assert is_function(name)
    assert backbone_function.matches(name)
    for option in ("backbone", "method", "augment", "dataset"):
        assert code_named(Config(**{option: name})) == {option: name}
    with pytest.raises(DataError, match="there is no module"):
        open_source(name)


@pytest.mark.parametrize("name", ["module", "1:2", "a..b:c", "a:b:c", "a:b.c", ":b", "a:", "a b:c", "", None, 3])
def test_no_function(name):
    assert not is_function(name)


def test_what_is_not_there():
    for spec, message in (("no_such_module:f", "there is no module"), ("math:pi", "a value"), ("math:f", "has no 'f'")):
        with pytest.raises(FunctionError, match=message):
            function_of(spec)
