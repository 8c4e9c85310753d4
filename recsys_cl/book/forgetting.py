"""Catastrophic forgetting of a fine-tuned sentence encoder, measured on paraphrases of everyday English.

The probe has sixty everyday sentences, each with a paraphrase in other words and a distractor in nearly the same words.
Fine-tuning did not train on them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from torch import Tensor

from recsys_cl.errors import InputError


class Triple(NamedTuple):
    """A sentence, a paraphrase, and a distractor that shares more words but means something else."""

    anchor: str
    paraphrase: str
    distractor: str


_SENTENCES = """\
The bus was late again this morning.
Once more the coach did not come on time.
The milk was sour again this morning.

She repaired the roof before the storm arrived.
She fixed the shingles ahead of the bad weather.
She combed the dog before the guests arrived.

He forgot his keys at the office.
The keys he needs are still lying where he works.
He found his manners at the office.

The soup needs more salt.
This broth tastes bland, season it.
The plan needs more time.

My neighbour plays the piano every evening.
Each night I hear piano music from next door.
My cousin plays tennis every evening.

They planted apple trees behind the barn.
Fruit trees were put in the ground at the back of the stable.
They parked two tractors behind the barn.

I cannot find the remote control.
The thing for switching television channels has gone missing.
I cannot stand the dress code.

The dog is afraid of thunder.
Storm noises frighten our pet.
The dog is fond of children.

Please close the window, it is cold in here.
I am freezing, could you shut that window?
Please water the flowers, it is hot in here.

She drinks her coffee without sugar.
She takes her espresso unsweetened.
She leaves her house without shoes.

The old man feeds pigeons in the park.
A pensioner gives bread to birds in the public garden.
The old man reads newspapers in the kitchen.

The doctor advised him to stop smoking.
His physician told him to give up cigarettes.
The doctor advised him to start running.

Her flight to Oslo was cancelled because of fog.
Poor visibility kept her plane to Norway on the ground.
Her trip to Rome was spoiled because of a strike.

The baby finally fell asleep.
At last the infant is dreaming.
The ladder finally fell over.

The library opens at nine on weekdays.
From Monday to Friday you can borrow books from nine in the morning.
The bakery opens at six on weekdays.

The tap in the kitchen is dripping.
Water keeps leaking out over the sink.
The clock in the hall is ticking.

The children built a castle of sand.
On the beach, the little ones made a sandcastle.
The children told a story of ghosts.

There is a stain on your shirt.
You have spilled something on your clothes.
There is a letter on your desk.

The lake freezes every winter.
In the cold season the water turns to ice.
The singer tours every winter.

She is allergic to nuts.
Peanuts and the like make her ill.
She is used to noise.

The bakery on the corner makes the best bread in town.
No loaf around here beats theirs.
The bank on the corner has the best rates in town.

The wind blew his hat into the river.
A gust carried off his cap, and it landed in the water.
The wind pushed the door into the wall.

The volcano erupted without warning.
Lava burst from the mountain all of a sudden.
The guests left without warning.

You should water the plants twice a week.
The pots need a drink every three or four days.
You should call your mother twice a week.

The printer is out of paper.
There are no sheets left to print on.
The painter is out of work.

He apologised for being rude.
He said sorry for his bad manners.
He was blamed for being late.

The knife is too blunt to cut tomatoes.
This blade needs sharpening, it only squashes vegetables.
The boy is too small to cut trees.

The ship reached the harbour at dawn.
The vessel came into port when the sun rose.
The letter reached the lawyer at noon.

The medicine must be kept in the refrigerator.
Store the pills somewhere cold.
The secret must be kept in the family.

His speech was much too long.
He talked for far more time than anyone wanted.
His coat was much too long.

We saw dolphins from the ferry.
Sea mammals swam past our boat.
We bought tickets from the driver.

She wrote the letter by hand.
She put pen to paper instead of typing.
She washed the jumper by hand.

The house has been empty since last autumn.
Nobody has lived in that building for months.
The pond has been frozen since last weekend.

The road to the cabin is steep and narrow.
It is a tight climb up the path to the hut.
The bed in the cabin is soft and warm.

The phone rang while I was in the bath.
I was washing when somebody called.
The cake burned while I was in the garden.

He is learning Spanish for his new job.
To work there he has to master the language of Madrid.
He is buying clothes for his new job.

Our cellar was flooded after the heavy rain.
The downpour left water standing in the basement.
Our garden was lovely after the long winter.

The tailor shortened the trousers.
The legs of the pants were taken up.
The editor shortened the article.

It is forbidden to feed the animals.
Visitors must not give the beasts anything to eat.
It is important to feed the goldfish.

The twins look exactly alike.
Nobody can tell the two brothers apart.
The twins disagree exactly there.

The fire brigade put out the blaze.
Firefighters extinguished the flames.
The fire brigade washed the lorry.

I sleep badly when the moon is full.
Bright lunar nights keep me awake.
I eat badly when the fridge is full.

Our team lost because the goalkeeper slipped.
The defeat was due to a stumble by the man between the posts.
Our team celebrated because the striker scored.

The cheese smells, but it tastes wonderful.
Despite the odour, this gouda is delicious.
The room is small, but it looks wonderful.

They argued about money all night.
Until morning the couple quarrelled over their finances.
They danced about the fire all night.

The meeting was moved from Monday to Thursday.
We will now get together three days later in the week.
The meeting was moved from Thursday to Monday.

Prices rose faster than wages last year.
Salaries did not keep up with inflation in recent months.
Wages rose faster than prices last year.

The bridge is closed to lorries.
Heavy goods vehicles may not cross here.
The bridge is open to lorries.

My sister is two years older than I am.
I was born a couple of years after her.
My sister is two years younger than I am.

The nurse gave the patient a glass of water.
The sick man was handed a drink by hospital staff.
The patient gave the nurse a glass of water.

It hardly ever snows in this city.
Winter here is nearly always free of white flakes.
It nearly always snows in this city.

He failed the driving test for the third time.
Three attempts, and still no licence.
He passed the driving test on the third try.

The cat chased the mouse across the yard.
A rodent fled from the feline.
The mouse chased the cat across the yard.

Their team won the final by one goal.
A single point decided the championship for them.
Their team lost the final by one goal.

The shop accepts cash only.
You cannot pay by card there.
The shop accepts cards only.

The lawyer refused to answer the question.
The attorney would not reply.
The lawyer agreed to answer the question.

The judge believed the witness.
The court found the testimony credible.
The witness believed the judge.

The company dismissed a hundred workers.
A hundred people lost their jobs at the firm.
The company hired a hundred workers.

The soldiers were ordered to retreat.
The troops got the command to pull back.
The soldiers were ordered to attack.

The police caught the thief within an hour.
It took officers less than sixty minutes to arrest the burglar.
The thief escaped the police within an hour.
"""

TRIPLES = tuple(Triple(*lines.splitlines()) for lines in _SENTENCES.split("\n\n"))
"""Everyday English, far from any catalogue. The first forty-five distractors borrow the frame of the anchor; the last
fifteen reverse or negate it, which sentence encoders are known to overlook."""

Encode = Callable[[list[str]], Tensor]
"""Encoder: maps texts to vectors ``(len(texts), dim)``, such as ``LanguageEncoder.encode``."""


def paraphrase_accuracy(encode: Encode, triples: Sequence[Triple] = TRIPLES) -> float:
    r"""Paraphrase accuracy: share of sentences that are closer to their paraphrase than to their distractor.

    .. math:: \frac{1}{n} \sum_{k=1}^{n} \mathbb{1}\left[\cos(f(a_k), f(p_k)) > \cos(f(a_k), f(d_k))\right]

    A tie counts as wrong, so an encoder that maps every sentence to the same vector scores 0.

    Args:
        encode: The encoder, :math:`f`.
        triples: Anchors :math:`a`, paraphrases :math:`p` and distractors :math:`d`.

    Raises:
        InputError: If ``encode`` does not return one finite vector per text.

    References:
        Zhang, Baldridge and He (2019), https://arxiv.org/abs/1904.01130, on paraphrases against shared words.

    See: chapter 6.

    >>> bag_of_words = lambda texts: torch.tensor([[float("cat" in t), float("ran" in t)] for t in texts])
    >>> paraphrase_accuracy(bag_of_words, [Triple("the cat ran", "cat, it ran", "the man ran"), Triple("a", "b", "c")])
    0.5
    """
    vectors = _vectors(encode, [text for triple in triples for text in triple])  # (3n, d)
    anchor, paraphrase, distractor = vectors.view(len(triples), 3, -1).unbind(1)  # (n, d) each
    closer = (anchor * paraphrase).sum(1) > (anchor * distractor).sum(1)  # (n,)
    return float(closer.double().mean())


def similarity_correlation(encode: Encode, original: Encode, triples: Sequence[Triple] = TRIPLES) -> float:
    r"""Similarity correlation: how well the original order of similarities is preserved, from 1 (fully) to 0.

    Spearman's rank correlation between :math:`\cos(f(s), f(t))` and :math:`\cos(f^0(s), f^0(t))` over all pairs of
    distinct sentences :math:`s, t` of the triples. It is invariant to scaling and rotation of the vectors.

    Args:
        encode: The fine-tuned encoder, :math:`f`.
        original: The original encoder, :math:`f^0`.
        triples: Triples whose sentences are compared.

    Raises:
        InputError: If ``encode`` does not return one finite vector per text.

    See: chapter 6.

    >>> original = lambda texts: torch.tensor([[1.0, float(len(text))] for text in texts])
    >>> round(similarity_correlation(lambda texts: -2 * original(texts), original), 6)
    1.0
    """
    texts = list(dict.fromkeys(text for triple in triples for text in triple))
    above = torch.triu_indices(len(texts), len(texts), 1)  # (2, pairs)
    now, before = (
        (vectors @ vectors.T)[above[0], above[1]].numpy()  # (pairs,)
        for vectors in (_vectors(encode, texts), _vectors(original, texts))
    )
    return float(spearmanr(now, before).statistic) if np.ptp(now) > 0 else 0.0


def _vectors(encode: Encode, texts: list[str]) -> Tensor:
    """Unit vectors in double precision, ``(len(texts), dim)``."""
    vectors = encode(texts).detach().cpu().double()  # (n, d)
    if vectors.ndim != 2 or len(vectors) != len(texts):
        raise InputError(f"encode returned {tuple(vectors.shape)} for {len(texts)} texts; return one vector per text")
    if not vectors.isfinite().all():
        raise InputError("encode returned a vector that is not finite; train with a lower learning rate")
    return F.normalize(vectors, dim=1)
