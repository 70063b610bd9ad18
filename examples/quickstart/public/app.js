// The page: signs in, and calls its backend with an app JWT that the client library keeps fresh.
import { createAppSession } from '/client/index.js';

const element = (id) => document.getElementById(id);
const config = await (await fetch('/config.json')).json();

// The stand-in for Clerk. With Clerk these three lines change.
let session;
const signIn = async () => (session = await standIn('session-id')); // Clerk: () => Clerk.openSignIn()
const signOut = async () => (session = undefined); // Clerk: () => Clerk.signOut()
const getSubjectToken = () => session && standIn(`session-token?session=${session}`); // Clerk: ({ forceRefresh }) => Clerk.session?.getToken({ skipCache: forceRefresh })

const standIn = async (what) => (await fetch(`/stand-in/${what}`, { method: 'POST' })).text();

const tokens = createAppSession({ ...config, getSubjectToken });
tokens.on('session', ({ user }) => (element('who').textContent = `Signed in as ${user.id}.`));
tokens.on('clear', () => (element('who').textContent = 'Nobody is signed in.'));

async function load() {
  element('tasks').replaceChildren();
  try {
    const answer = await tokens.fetch('/api/tasks');
    if (!answer.ok) throw new Error(`The backend answered ${answer.status}.`);
    const { tasks } = await answer.json();
    element('tasks').replaceChildren(...tasks.map((task) => Object.assign(document.createElement('li'), { textContent: task })));
  } catch (error) {
    element('who').textContent = error.message;
  }
}

element('sign-in').onclick = async () => {
  await signIn();
  await tokens.ensure();
};
element('load').onclick = load;
element('sign-out').onclick = async () => {
  tokens.clear();
  await signOut();
};
