// isomorphic-git as a program: clone URL DIR, or push DIR URL REF...; user and secret come from the environment.
// Found through NODE_PATH.
const fs = require('fs')
const git = require('isomorphic-git')
const http = require('isomorphic-git/http/node')

const onAuth = () => ({ username: process.env.GIT_USER, password: process.env.GIT_SECRET })
const onAuthFailure = () => ({ cancel: true })
const [command, ...rest] = process.argv.slice(2)

async function main() {
  if (command === 'clone') {
    const [url, dir] = rest
    await git.clone({ fs, http, dir, url, onAuth, onAuthFailure })
  } else {
    const [dir, url, ...refs] = rest
    const cache = {}
    for (const ref of refs) {
      const result = await git.push({ fs, http, dir, url, ref, remoteRef: ref, onAuth, onAuthFailure, cache })
      if (!result.ok) throw new Error(JSON.stringify(result))
    }
  }
}

main().catch((error) => {
  console.error(`${error.code || error.name}: ${error.message}`)
  process.exitCode = 1
})
