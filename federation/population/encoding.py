"""How agreed columns become numbers: by public bounds and categories only."""

from collections.abc import Sequence

from compliance.agreement import Agreement
from compliance.terms import ColumnTerm
from privacy.training.encoding import CategoricalFeature, Encoder, NumericFeature, Scale

__all__ = ["encoder_for", "encoder_of"]


def encoder_for(agreement: Agreement) -> Encoder:
    """Return the encoder of the agreed features: public bounds and categories only.

    Raises:
        InvalidParameterError: no features are agreed.
    """
    return encoder_of(agreement.features)


def encoder_of(terms: Sequence[ColumnTerm]) -> Encoder:
    """Return the encoder of agreed columns.

    Raises:
        InvalidParameterError: there are none, or two of one name.
    """
    return Encoder(
        tuple(
            NumericFeature(term.name, float(term.minimum), float(term.maximum), Scale(term.scale))
            if term.minimum is not None and term.maximum is not None
            else CategoricalFeature(term.name, term.categories)
            for term in terms
        )
    )
