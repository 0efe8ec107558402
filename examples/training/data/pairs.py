"""Writes pairs.tsv: sentence pairs with the same words, which mean the same or not by who does what.

Each fact is said in two ways, and so is the fact with its two parts exchanged. Of the four sentences, those
of one fact are paraphrases (1), one of each fact are not (0), in the same form or in different forms: so
neither the words nor the form tell. The facts of the test split have names and things of their own.
"""

from pathlib import Path

FACTS = 8  # per family, of which the last TEST are for testing
TEST = 2

FAMILIES = (
    ("{a} thanked {b} for {c}.", "{b} was thanked by {a} for {c}.", """
     Anna/Peter/the flowers; Maria/Tom/the invitation; Ahmed/Julia/her patience; Nina/Oscar/his advice
     Paul/Irene/the long letter; Clara/David/the ride home; Yusuf/Helen/the soup; Greta/Simon/the tickets"""),
    ("{a} lent {b} {c}.", "{b} borrowed {c} from {a}.", """
     Laura/Mark/a bicycle; Ivan/Rosa/fifty dollars; Emma/Felix/a warm coat; Hugo/Alice/the car for a weekend
     Sara/Victor/an umbrella; Leon/Marta/a camera; Olga/Frank/a tent; Bruno/Edith/a ladder"""),
    ("{a} sold {c} to {b}.", "{b} bought {c} from {a}.", """
     The farmer/the baker/ten sacks of rye; The widow/the lawyer/an old house; The city/the bank/the empty lot
     The painter/the museum/three portraits; The airline/the army/two planes; The monks/the innkeeper/honey
     The collector/the library/a rare atlas; The fisherman/the cook/the whole catch"""),
    ("{a} beat {b} at {c}.", "{b} lost to {a} at {c}.", """
     Carla/Stefan/chess; Our school/the visitors/football; My uncle/his neighbour/cards; Brazil/Italy/volleyball
     The juniors/the seniors/basketball; The captain/the cook/arm wrestling; Norway/Canada/curling
     The twins/their parents/table tennis"""),
    ("{a} taught {b} {c}.", "{b} learned {c} from {a}.", """
     Mr Lopez/Miss Grant/Spanish; The nurse/the student/first aid; Grandfather/Lucy/how to whistle
     The sailor/the boy/a dozen knots; Dr Chen/Dr Weber/statistics; The old monk/the traveller/calligraphy
     The coach/the referee/the new rules; Mrs Khan/the butler/Persian cooking"""),
    ("The {a} is older than the {b}.", "The {b} is newer than the {a}.", """
     castle/bridge; town hall/theatre; harbour/lighthouse; cathedral/market
     hospital/station; stadium/swimming pool; windmill/barn; university/observatory"""),
    ("The {a} is north of the {b}.", "The {b} lies to the south of the {a}.", """
     lake/forest; village/river; airport/motorway; desert/mountains
     island/mainland; park/cemetery; vineyard/monastery; glacier/valley"""),
    ("The {c} train runs from {a} to {b}.", "The {c} train to {b} starts in {a}.", """
     Lyon/Turin/noon; Madrid/Lisbon/night; Berlin/Prague/morning; Leeds/York/first
     Vienna/Zagreb/evening; Chicago/Detroit/fast; Oslo/Bergen/last; Delhi/Jaipur/seven o'clock"""),
    ("They {a} before they {b}.", "They {b} after they {a}.", """
     ate/swam; paid the bill/saw the menu; locked the door/turned off the lights; got married/bought a house
     read the book/watched the film; called a doctor/gave him water; signed the contract/spoke to a lawyer
     washed the carrots/peeled the potatoes"""),
    ("{a} are cheaper than {b} this week.", "This week {b} cost more than {a}.", """
     apples/pears; tomatoes/cucumbers; flights/train tickets; paperbacks/magazines
     lemons/oranges; roses/tulips; chairs/lamps; mussels/oysters"""),
    ("The {a} was caused by the {b}.", "The {b} led to the {a}.", """
     flood/landslide; strike/price rise; fire/explosion; panic/rumour
     power cut/accident; war/famine; delay/quarrel; epidemic/migration"""),
    ("{a} is taller than {b}.", "{b} is shorter than {a}.", """
     Kate/Jim; The goalkeeper/the striker; My sister/my cousin; The actor/the singer
     The bride/the groom; Ben/Zoe; The postman/the butcher; The giraffe/the elephant"""),
)  # fmt: skip


def capital(sentence):
    return sentence[0].upper() + sentence[1:]


def middle(noun):
    """A noun phrase inside a sentence: 'The farmer' is 'the farmer', and names stay."""
    first = noun.split()[0]
    if first in ("The", "My", "Our"):
        return first.lower() + noun[len(first) :]
    return noun


def rows():
    for one, two, facts in FAMILIES:
        facts = [f.strip() for line in facts.strip().splitlines() for f in line.split(";")]
        assert len(facts) == FACTS, one
        for i, fact in enumerate(facts):
            a, b, c = ([middle(x) for x in fact.split("/")] + [""])[:3]
            said, swapped = (
                [capital(form.format(a=x, b=y, c=c)) for form in (one, two)]
                for x, y in ((a, b), (b, a))
            )
            split = "train" if i < FACTS - TEST else "test"
            yield split, 1, said[0], said[1]
            yield split, 1, swapped[1], swapped[0]
            yield split, 0, said[0], swapped[0]
            yield split, 0, swapped[1], said[0]


if __name__ == "__main__":
    lines = ["split\tsame\tfirst\tsecond"] + ["\t".join(map(str, row)) for row in rows()]
    Path(__file__).with_name("pairs.tsv").write_text("\n".join(lines) + "\n")
