/* Sentences to read aloud, written for this page: about five seconds each, and all the sounds
   that learners are asked about. They are English in every language of the page. */

const SENTENCES = [
  "The water was still warm when our neighbors started rowing back to the harbor.",
  "Thirty-three people thought the weather would be better on Thursday than it really was.",
  "My little brother bought a bottle of butter and a bag of potatoes at the market.",
  "Could you hold the door while I carry these four heavy boxes to the car?",
  "We usually measure the garage twice before we order new shelves for it.",
  "She sells the same small shells that she showed us at the shore last summer.",
  "I would rather walk around the park than sit in the dark and watch a movie.",
  "The red truck on the narrow road rarely arrives before a quarter past three.",
  "Put the blue book on the wooden shelf, and pull the other one toward you.",
  "He laughed and asked whether half of the class had passed the last math test.",
  "It is hard to hear what the teacher says when everybody is talking at once.",
  "Our daughter caught the ball, thought about it, and tossed it across the lawn.",
  "Very few visitors know that this village has its own vegetable festival.",
  "The bird on the third branch was the first one to turn and fly to the north.",
  "I can't believe that you finished the whole puzzle in less than twenty minutes.",
  "Please leave your keys on the kitchen counter, and then lock the back door.",
  "A young girl was pulling a yellow wagon full of apples, pears, and cherries.",
  "They said that the city had grown so fast that nobody could recognize it.",
  "Every winter the pond freezes over, and the children learn how to skate.",
  "What do you want to order for dinner, the roasted chicken or the fried rice?",
  "The judge asked a gentle question about the damaged bridge on the edge of town.",
  "Someone must have left the window open, since the whole floor is wet with rain.",
  "Last night we heard an owl outside, calling from the old tower across the river.",
  "He poured the coffee, stirred in some sugar, and carefully carried it upstairs.",
  "Wouldn't it be wonderful to wake up early and watch the world without a worry?",
  "My cousin works as a nurse in a large hospital near the center of Atlanta.",
  "There are three other brothers in that family, and neither of us has met them.",
  "Ask your father what he thought of the article that was in the paper today.",
];

let current = Math.floor(Math.random() * SENTENCES.length);

export const sentence = () => SENTENCES[current];

/** Another one than that shown; all of them come before one comes again. */
export function another() {
  current = (current + 1) % SENTENCES.length;
  return SENTENCES[current];
}
